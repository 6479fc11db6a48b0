"""Asks a Ray cluster: its job server, its version, and by a job of ours every node and two of them together."""

from __future__ import annotations

import json
import logging
import os
import platform
import shlex
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster.checks import link, nodes, probe, ray_driver
from cluster.checks.finding import Finding, Findings
from cluster.checks.plan import Plan
from cluster.checks.ray_driver import RayReport
from cluster.checks.trial import Trial
from cluster.spec import RayOptions

DEFAULT_ADDRESS = "http://127.0.0.1:8265"  # Ray's own
CONNECT_S = 5.0  # Ray's client would wait for minutes
START_S = 120.0  # for a job's driver to start, beyond what its tasks may take
POLL_S = 0.5
TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray._private.runtime_env.packaging",
)  # tell of every upload
HERE = Path(__file__).parent


def check(plan: Plan, options: RayOptions, trial: Trial) -> Findings:
    """Everything about Ray, from its job server to two nodes that compute together."""
    address = options.address or os.environ.get("RAY_ADDRESS") or DEFAULT_ADDRESS
    problem = _problem(address)
    if problem:
        remedy = "give ray.address=http://HEAD:8265, the address of the dashboard of a cluster that is up"
        yield Finding("ray", "broken", f"{address}: {problem}", remedy)
        return
    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(address)
        for name in TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        log, ended = _survey(client, plan, trial)
    except (RuntimeError, ConnectionError) as error:  # what its client makes of an answer that is not 200
        yield Finding(
            "ray", "broken", f"{address}: {_last_line(str(error))}", "take the same Ray here and there"
        )
        return
    report = ray_driver.from_text(log)
    if report is None:
        seen = f"{address} takes jobs, but one of ours {ended}: {_last_line(log)}"
        remedy = "give --python an interpreter with castbank that every node of the cluster sees"
        yield Finding("ray", "broken", seen, remedy)
        return
    yield _versions(address, report)
    yield from _nodes(report, trial)


def _problem(address: str) -> str:
    """Why an address cannot be a job server; empty where somebody listens there."""
    if not _installed():
        return "ray is not installed here"
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "is no address of a job server, which begins with http://"
    try:
        socket.create_connection((parts.hostname, parts.port or 80), CONNECT_S).close()
    except OSError as error:
        return str(error)
    return ""


def _installed() -> str:
    try:
        return version("ray")
    except PackageNotFoundError:
        return ""


def _survey(client: Any, plan: Plan, trial: Trial) -> tuple[str, str]:
    """What our job on the cluster printed, and how it ended."""
    order = ray_driver.Order(
        asdict(probe.Order(str(trial.folder), trial.token, plan.url)), plan.num_nodes, plan.wait_s
    )
    words = (plan.python or sys.executable, "-m", "cluster.checks.ray_driver", json.dumps(asdict(order)))
    limit_s = START_S + 2 * plan.wait_s + 2 * ray_driver.LINK_S
    with _luggage() as folder:
        job = client.submit_job(
            entrypoint=shlex.join(words),
            runtime_env={"working_dir": str(folder)},
            metadata={"name": "castbank-doctor"},
        )
        status, until_s = client.get_job_status(job), time.monotonic() + limit_s
        while not status.is_terminal() and time.monotonic() < until_s:
            time.sleep(POLL_S)
            status = client.get_job_status(job)
    if not status.is_terminal():
        client.stop_job(job)
    code = client.get_job_info(job).driver_exit_code
    how = f"ended with {code}" if status.is_terminal() else f"is {status.value.lower()} after {limit_s:g} s"
    return client.get_job_logs(job), how


@contextmanager
def _luggage() -> Iterator[Path]:
    """The part of this package that runs on the cluster, as a working directory to be sent there."""
    with tempfile.TemporaryDirectory(prefix="castbank-doctor-") as made:
        package = Path(made) / "cluster" / "checks"
        package.mkdir(parents=True)
        (package.parent / "__init__.py").touch()
        (package / "__init__.py").touch()
        for module in (probe, link, ray_driver):
            shutil.copy(str(module.__file__), package)
        yield Path(made)


def _versions(address: str, report: RayReport) -> Finding:
    alive = [node for node in report.nodes if node.alive]
    total = {
        name: sum(node.resources.get(name, 0.0) for node in alive) for name in ("CPU", "GPU", "memory_gib")
    }
    seen = (
        f"Ray {report.ray} at {address}: {len(alive)} nodes, {total['CPU']:g} CPUs, {total['GPU']:g} GPUs, "
        f"{total['memory_gib']:.0f} GiB"
    )
    here = f"Ray {_installed()}, python {platform.python_version()}"
    if report.ray != _installed():
        return Finding("ray", "broken", f"{seen}; here {here}", "install the same Ray here and there")
    if report.python.split(".")[:2] != platform.python_version().split(".")[:2]:
        return Finding(
            "ray", "broken", f"{seen}, python {report.python}; here {here}", "take the same Python"
        )
    return Finding("ray", "ok", f"{seen}, python {report.python}")


def _nodes(report: RayReport, trial: Trial) -> Findings:
    asked = []
    for node in report.nodes:
        name = f"node {node.host}"
        if not node.alive:
            yield Finding(name, "warning", "Ray counts it as dead", "start it again with ray start")
        elif node.problem:
            yield Finding(name, "broken", node.problem, "look into its logs; ray list nodes shows its state")
        elif node.report:
            (seen,) = probe.from_text(node.report)
            promised = node.resources.get("GPU", 0.0) >= 1
            asked.append(nodes.Asked(seen, *node.seconds, trial.sees(seen.host), promised))
            yield from nodes.judge(asked[-1], platform.python_version())
    yield from nodes.compare([one.report for one in asked])
    if report.links:
        links = link.from_text("\n".join(report.links))
        yield from nodes.judge_link(links, [one.report for one in asked[:2]])


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines and not lines[-1].startswith("Running entrypoint") else "it printed nothing"
