"""Runs inside a Ray cluster, as a job: looks at its nodes one by one and lets two of them compute together.

It travels to the cluster with ``probe`` and ``link`` and nothing else of ours. What it finds it prints.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cluster.checks import link, probe

MARK = "CASTBANK-RAY "
LINK_S = 60.0


@dataclass(frozen=True)
class Order:
    """What to look at; probe: fields of ``probe.Order``; wait_s: for a node to take a task."""

    probe: dict[str, str]
    num_nodes: int
    wait_s: float


@dataclass(frozen=True)
class RayNode:
    """A node as Ray shows it. seconds: Unix times before and after the probe there, where it reported."""

    id: str
    host: str
    alive: bool
    resources: dict[str, float]
    seconds: tuple[float, float] = (0.0, 0.0)
    report: str = ""  # a line of ``probe``; empty where the node did not take the task
    problem: str = ""


@dataclass(frozen=True)
class RayReport:
    """The cluster; links: lines of ``link``, for the first two nodes that reported."""

    ray: str
    python: str
    nodes: list[RayNode]
    links: list[str] = field(default_factory=list)


def survey(order: Order) -> RayReport:
    """Ask the nodes; those with most to give are asked first."""
    import ray

    ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    found = [
        RayNode(n["NodeID"], n["NodeManagerHostname"], bool(n["Alive"]), amounts(n["Resources"]))
        for n in ray.nodes()
    ]
    found.sort(
        key=lambda node: (not node.alive, -node.resources.get("GPU", 0), -node.resources.get("CPU", 0))
    )
    tried = [node for node in found if node.alive][: order.num_nodes]
    done = look(tried, order) + [node for node in found if node not in tried]
    reported = [node for node in done if node.report]
    return RayReport(ray.__version__, platform.python_version(), done, meet(reported[:2], order))


def amounts(resources: dict[str, Any]) -> dict[str, float]:
    """CPUs, GPUs and memory (GiB) of a node."""
    kept = {name: float(resources[name]) for name in ("CPU", "GPU") if name in resources}
    return kept | {"memory_gib": resources.get("memory", 0) / 2**30}


def look(nodes: list[RayNode], order: Order) -> list[RayNode]:
    """Each node with its report, or with why there is none."""
    import ray

    wanted = probe.Order(**order.probe)
    tasks = [on(node, 0)(lambda: probe.to_line(probe.look(wanted))).remote() for node in nodes]
    done, _ = ray.wait(tasks, num_returns=len(tasks), timeout=order.wait_s)
    result = []
    for node, task in zip(nodes, tasks, strict=True):
        if task not in done:
            result.append(replace(node, problem=f"took no task within {order.wait_s:g} s"))
            continue
        try:
            result.append(timed(node, ray.get(task)))
        except ray.exceptions.RayError as error:
            result.append(replace(node, problem=str(error).strip().splitlines()[-1]))
    return result


def timed(node: RayNode, line: str) -> RayNode:
    """The node with its report and a reading of its clock, taken while its worker waits for nothing else."""
    import ray

    def clock() -> float:  # Ray takes no built-in function
        return time.time()

    before_s = time.time()
    at_s = ray.get(on(node, 0)(clock).remote())
    (report,) = probe.from_text(line)
    return replace(node, report=probe.to_line(replace(report, at_s=at_s)), seconds=(before_s, time.time()))


def meet(nodes: list[RayNode], order: Order) -> list[str]:
    """Reports of two nodes that compute together; none where there are not two."""
    import ray

    if len(nodes) < 2:
        return []
    (first,) = probe.from_text(nodes[0].report)
    gpus = int(all(node.resources.get("GPU", 0) >= 1 for node in nodes))
    orders = [link.Order(first.host, first.port, LINK_S, rank=rank) for rank in (0, 1)]
    tasks = [
        on(node, gpus)(lambda one: link.to_line(link.meet(one))).remote(one)
        for node, one in zip(nodes, orders, strict=True)
    ]
    done, _ = ray.wait(tasks, num_returns=2, timeout=order.wait_s + 2 * LINK_S)
    return [ray.get(task) for task in done]


def on(node: RayNode, gpus: int) -> Any:
    """Makes a function remote, to run on this node or not at all."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(node_id=node.id, soft=False)
    return ray.remote(num_cpus=0, num_gpus=gpus, max_retries=0, scheduling_strategy=here)


def from_text(text: str) -> RayReport | None:
    """The report in a job's log; None where it has none."""
    for line in text.splitlines():
        if line.startswith(MARK):
            entry = json.loads(line[len(MARK) :])
            nodes = [RayNode(**{**node, "seconds": tuple(node["seconds"])}) for node in entry["nodes"]]
            return RayReport(**{**entry, "nodes": nodes})
    return None


if __name__ == "__main__":
    asked = Order(**json.loads(sys.argv[1]))
    sys.stdout.write(MARK + json.dumps(asdict(survey(asked))) + "\n")
