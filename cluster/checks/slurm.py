"""Asks Slurm: commands, controller, partitions; then a short step on some nodes, and on two of them together."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.checks import link, nodes, probe
from cluster.checks.finding import NOT_THERE, TOO_LATE, Answer, Finding, Findings, State, ask
from cluster.checks.plan import Plan
from cluster.checks.trial import Trial
from cluster.spec import SlurmOptions

COMMANDS = ("sinfo", "srun", "sbatch", "squeue", "scontrol", "scancel")
BUSY_WORDS = (
    "immediate",
    "Requested nodes are busy",
    "try again later",
)  # srun --immediate, several versions
AT_ONCE = 8  # steps asked for at the same time
LINK_S = 60.0  # torch alone takes 10 s and more to import from a cold network file system


@dataclass(frozen=True)
class Node:
    """A node of a partition, as sinfo shows it. state: idle, mix, alloc, down, drain, ...; gpus: it has some."""

    name: str
    partition: str
    state: str
    gpus: bool


def check(plan: Plan, options: SlurmOptions, trial: Trial) -> Findings:
    """Everything about Slurm, from its commands to two nodes that compute together."""
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing:
        remedy = "install Slurm's client programs here, or ask from a login node"
        yield Finding("slurm", "broken", f"{', '.join(missing)}: not there", remedy)
        return
    ping = _ask("scontrol", "ping")
    if ping.code != 0 or " UP" not in ping.out:
        remedy = "check SLURM_CONF and munge here; the controller's machine is named above"
        seen = (ping.out.strip().splitlines() or [ping.why])[0]
        yield Finding("slurm", "broken", seen, remedy)
        return
    yield from _settings()
    found = nodes_of(_ask("sinfo", "-N", "-h", "-o", "%N|%P|%t|%G").out)
    yield from _partitions(found, options.partition)
    wanted = chosen([n for n in found if options.partition in ("", n.partition)], plan.num_nodes)
    if wanted:
        yield from _nodes(plan, options, trial, wanted)


def _settings() -> Findings:
    text = _ask("scontrol", "show", "config").out
    settings = {
        key.strip(): value.strip() for key, _, value in (line.partition("=") for line in text.splitlines())
    }
    yield Finding("slurm", "ok", f"Slurm {settings.get('SLURM_VERSION', '?')}, the controller answers")
    if settings.get("AccountingStorageType", "").endswith("/none"):
        yield Finding(
            "slurm accounting",
            "warning",
            f"none; how jobs ended is known for MinJobAge = {settings.get('MinJobAge', '?')}",
            "fine: jobs note their own end in their folder; sacct would know of jobs that could not",
        )
    if settings.get("JobRequeue") == "0":
        seen = "JobRequeue = 0: jobs do not come back by themselves after a node fails"
        yield Finding(
            "slurm requeue", "warning", seen, "castbank asks for it per job; castbank requeue works too"
        )


def nodes_of(text: str) -> list[Node]:
    """Nodes in ``sinfo -N -h -o '%N|%P|%t|%G'``; a node in several partitions comes several times."""
    rows = [line.strip().split("|") for line in text.splitlines() if line.count("|") == 3]
    return [
        Node(name, part.rstrip("*"), state.rstrip("*~#!%$@^-+"), "gpu" in gres)
        for name, part, state, gres in rows
    ]


def _partitions(found: Sequence[Node], wanted: str) -> Findings:
    limits = {node.partition: "" for node in found}
    for line in _ask("sinfo", "-h", "-o", "%R|%l|%a").out.splitlines():
        name, limit, available = line.strip().split("|")
        limits[name] = f"limit {limit}, {available}"
    if wanted and wanted not in limits:
        remedy = f"set slurm.partition to one of {', '.join(sorted(limits))}"
        yield Finding(f"partition {wanted}", "broken", "there is none of that name", remedy)
    for name, limit in sorted(limits.items()):
        if wanted not in ("", name):
            continue
        mine = [node for node in found if node.partition == name]
        states = Counter(node.state for node in mine)
        gone = sum(states[state] for state in states if not state.startswith(USABLE))
        seen = ", ".join(f"{count} {state}" for state, count in states.most_common())
        seen += f"; {limit}; {sum(node.gpus for node in mine)} with GPUs"
        up = "up" in limit.split(", ")
        useless = not up or gone == len(mine)
        state: State = "broken" if wanted and useless else "warning" if useless or gone else "ok"
        remedy = "" if state == "ok" else f"sinfo -R says why{_reasons()}"
        yield Finding(f"partition {name}", state, seen, remedy)


USABLE = ("idle", "mix", "alloc", "comp", "resv")


def _reasons() -> str:
    first = _ask("sinfo", "-R", "-h", "-o", "%N: %E").out.strip().splitlines()
    return f" ({first[0]})" if first else ""


def chosen(found: Sequence[Node], num_nodes: int) -> list[Node]:
    """Distinct nodes to try: those with most to give first; full and missing ones are left out."""
    order = {"idle": 0, "mix": 1, "mixed": 1}
    free = sorted((n for n in found if n.state in order), key=lambda n: (order[n.state], not n.gpus))
    return list({node.name: node for node in reversed(free)}.values())[::-1][:num_nodes]


def _nodes(plan: Plan, options: SlurmOptions, trial: Trial, wanted: Sequence[Node]) -> Findings:
    asked = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for node, (answer, before_s, after_s) in zip(
            wanted, pool.map(lambda node: _probe(plan, options, trial, node), wanted), strict=True
        ):
            reports = probe.from_text(answer.out)
            if not reports:
                yield _no_report(node, answer, plan)
                continue
            (report,) = reports
            asked.append(nodes.Asked(report, before_s, after_s, trial.sees(report.host), node.gpus))
            yield from nodes.judge(asked[-1], platform.python_version())
    yield from nodes.compare([one.report for one in asked])
    if len(asked) > 1:
        yield from _link(plan, options, asked[0], asked[1])


def _probe(plan: Plan, options: SlurmOptions, trial: Trial, node: Node) -> tuple[Answer, float, float]:
    """One task on one node, with Unix times before and after."""
    order = probe.Order(str(trial.folder), trial.token, plan.url)
    words = [*_srun(plan, options, [node]), "-P", "-", json.dumps(asdict(order))]
    before_s = time.time()
    answer = ask(words, plan.wait_s + 60, Path(probe.__file__).read_text(encoding="utf-8"), _environment())
    return answer, before_s, time.time()


def _link(plan: Plan, options: SlurmOptions, first: nodes.Asked, second: nodes.Asked) -> Findings:
    reports = [first.report, second.report]
    order = link.Order(reports[0].host, reports[0].port, LINK_S, first=reports[0].node)
    both = [Node(one.report.node, "", "", one.gpus_promised) for one in (first, second)]
    words = [*_srun(plan, options, both), "-P", "-", json.dumps(asdict(order))]
    answer = ask(
        words, plan.wait_s + 2 * LINK_S, Path(link.__file__).read_text(encoding="utf-8"), _environment()
    )
    if not answer.out and busy(answer):
        seen = f"not both free within {plan.wait_s:g} s"
        yield Finding(
            f"link {both[0].name} - {both[1].name}", "warning", seen, "ask again when they are, or --wait-s"
        )
    else:
        yield from nodes.judge_link(link.from_text(answer.out), reports)


def _srun(plan: Plan, options: SlurmOptions, on: Sequence[Node]) -> list[str]:
    """srun of one Python per node, its arguments to follow."""
    words = [
        "srun",
        f"--nodes={len(on)}",
        f"--ntasks={len(on)}",
        "--ntasks-per-node=1",
        "--job-name=castbank-doctor",
    ]
    words += [
        f"--nodelist={','.join(node.name for node in on)}",
        f"--immediate={max(2, int(plan.wait_s))}",  # 1 means at once, which another waiting job prevents
        "--time=3",
    ]
    given = {
        "partition": options.partition or on[0].partition,
        "account": options.account,
        "qos": options.qos,
        "reservation": options.reservation,
        "constraint": options.constraint,
        "gres": options.gres or ("gpu:1" if all(node.gpus for node in on) else ""),
    }
    words += [f"--{name}={value}" for name, value in given.items() if value]
    return [*words, *options.extra, plan.python or sys.executable]


def _no_report(node: Node, answer: Answer, plan: Plan) -> Finding:
    name = f"node {node.name}"
    if busy(answer):
        return Finding(
            name, "warning", f"not free within {plan.wait_s:g} s", "ask again later, or give --wait-s"
        )
    if "Required node not available" in answer.error:
        return Finding(name, "warning", "not to be had: down, drained or reserved since", "sinfo -R says why")
    if "execve" in answer.error or answer.code == NOT_THERE:
        remedy = "give --python an interpreter that every node sees, such as one in a shared environment"
        why = next((line for line in answer.error.splitlines() if "execve" in line), answer.why)
        return Finding(
            name, "broken", f"cannot run {plan.python or sys.executable}: {why.rpartition(': ')[2]}", remedy
        )
    return Finding(name, "broken", answer.why, "try the same by hand: srun -w NODE hostname")


def busy(answer: Answer) -> bool:
    """Whether a node was only not free in time."""
    return answer.code == TOO_LATE or any(word in answer.error for word in BUSY_WORDS)


def _ask(*words: str) -> Answer:
    return ask(words, environment=_environment())


def _environment() -> dict[str, str]:
    """Ours without the job that we may run in, whose settings srun would take over."""
    return {
        name: value
        for name, value in os.environ.items()
        if name == "SLURM_CONF" or not name.startswith(("SLURM_", "SLURMD_", "SBATCH_"))
    }
