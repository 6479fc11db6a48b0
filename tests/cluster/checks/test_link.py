"""Two processes that know nothing of ours meet over this machine's name, or say why they cannot."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from cluster.checks import link
from cluster.checks.link import LinkReport, Order


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("", 0))
        return int(asked.getsockname()[1])


def reports(orders: Sequence[Order], nodes: Sequence[str] = ("n1", "n2")) -> list[LinkReport]:
    """Of one process per order, each with its place in the scheduler's environment."""
    text = Path(link.__file__).read_text(encoding="utf-8")
    running = [
        subprocess.Popen(
            [sys.executable, "-P", "-", json.dumps(asdict(order))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            env={**os.environ, "SLURMD_NODENAME": node, "OMP_NUM_THREADS": "1"},
        )
        for order, node in zip(orders, nodes, strict=False)
    ]
    for process in running:
        assert process.stdin is not None
        process.stdin.write(text)
        process.stdin.close()
        process.stdin = None
    return [report for process in running for report in link.from_text(process.communicate(timeout=120)[0])]


def test_two_that_meet() -> None:
    order = Order(platform.node(), free_port(), 60, first="n1")
    first, second = reports([order, order])
    for report in (first, second):
        assert (report.problem, report.stage) == ("", "")
        assert report.gloo_mib_s > 0 and report.nccl_mib_s == 0 and report.via
    assert (first.rank, second.rank) == (0, 1)


def test_a_name_that_is_unknown_and_a_first_node_that_is_not_there() -> None:
    order = Order("no-such-host.invalid", free_port(), 0.5, rank=1)
    (unknown,) = reports([order])
    assert (unknown.stage, unknown.rank) == ("name", 1)
    (alone,) = reports([replace(order, master="127.0.0.1")])
    assert alone.stage == "port" and "refused" in alone.problem
    (waiting,) = reports([replace(order, master="127.0.0.1", rank=0)])
    assert waiting.stage == "port" and "timed out" in waiting.problem
