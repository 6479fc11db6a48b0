"""What reports of nodes mean: every trouble is named with its remedy, and a good node takes one line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.checks.link import LinkReport
from cluster.checks.nodes import Asked, compare, judge, judge_link
from cluster.checks.probe import Folder, NodeReport

GOOD_FOLDER = Folder(True, "", 500.0, True, "held", 100.0)
GOOD = NodeReport(
    "host1", "n1", 1000.0, "3.11.7", "/env/bin/python", "0.1.0", [], 8, 64.0, 32.0, ["A100"], "550.1", "10.0.0.1",
    4000, GOOD_FOLDER,
)  # fmt: skip
ASKED = Asked(GOOD, 999.0, 1001.0, seen_here=True, gpus_promised=True)


def found(asked: Asked) -> list[tuple[str, str]]:
    return [(finding.state, finding.seen) for finding in judge(asked, "3.11.2")]


def test_a_good_node_takes_one_line() -> None:
    ((state, seen),) = found(ASKED)
    assert state == "ok"
    assert seen == (
        "python 3.11.7, castbank 0.1.0, 8 cores, 64 GiB, 1 x A100, driver 550.1, folder 500 MiB/s, locks and "
        "renames work, clock within 2.0 s"
    )


@pytest.mark.parametrize(
    ("change", "state", "seen"),
    [
        ({"python": "3.12.1"}, "broken", "python 3.12.1, here 3.11.2"),
        ({"castbank": ""}, "broken", "/env/bin/python has no castbank"),
        ({"missing": ["torch", "av"]}, "broken", "/env/bin/python has no torch, av"),
        ({"gpus": [], "driver": ""}, "broken", "the scheduler says it has GPUs, nvidia-smi there shows none"),
        ({"at_s": 1031.0}, "warning", "its clock is 30 s or more ahead"),
        ({"at_s": 979.0}, "warning", "its clock is 20 s or more behind"),
        ({"shm_gib": 0.0625}, "warning", "/dev/shm holds 0.06 GiB"),
        ({"url": "refused"}, "broken", "MLflow does not answer there: refused"),
    ],
)
def test_what_may_be_wrong_with_a_node(change: dict[str, object], state: str, seen: str) -> None:
    assert found(replace(ASKED, report=replace(GOOD, **change))) == [(state, seen)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "state", "seen"),
    [
        ({"visible": False, "problem": "No such file"}, "broken", "is not the same there: No such file"),
        ({"problem": "Read-only file system"}, "broken", "cannot be written to: Read-only file system"),
        ({"renames": False}, "broken", "a rename did not replace a file at once"),
        ({"lock": "free"}, "warning", "a lock held here is free there"),
        ({"lock": "No locks available"}, "warning", "files cannot be locked: No locks available"),
        ({"write_mib_s": 4.2}, "warning", "the folder takes 4 MiB/s"),
    ],
)
def test_what_may_be_wrong_with_the_folder(change: dict[str, object], state: str, seen: str) -> None:
    folder = replace(GOOD_FOLDER, **change)  # type: ignore[arg-type]
    ((got_state, got_seen),) = found(replace(ASKED, report=replace(GOOD, folder=folder)))
    assert got_state == state
    assert seen in got_seen


def test_what_a_node_wrote_and_nobody_sees() -> None:
    ((state, seen),) = found(replace(ASKED, seen_here=False))
    assert (state, "is not seen here" in seen) == ("warning", True)


def test_nodes_that_differ() -> None:
    other = replace(GOOD, node="n2", driver="535.2")
    (finding,) = compare([GOOD, other, replace(GOOD, node="n3")])
    assert (finding.name, finding.seen) == ("driver of nodes", "535.2 on n2; 550.1 on n1, n3")
    assert not list(compare([GOOD, replace(other, driver="")]))  # a node without GPUs is another matter


def test_links_that_work_and_that_do_not() -> None:
    nodes = [GOOD, replace(GOOD, node="n2")]
    one = LinkReport(0, "host1", via="10.0.0.1", gloo_mib_s=900.0, nccl_mib_s=20000.0)
    (finding,) = judge_link([replace(one, rank=1, host="host2"), one], nodes)
    assert finding.name == "link n1 - n2"
    assert finding.seen == "sums of 16 MiB through 10.0.0.1: gloo 900 MiB/s, NCCL 20000 MiB/s"
    cut = LinkReport(1, "host2", "port", "timed out")
    (finding,) = judge_link([LinkReport(0, "host1", "port", "nobody came"), cut], nodes)
    assert finding.seen == "a port of the first node is not reached from the other: host2: timed out"
    assert "open the network" in finding.remedy
    (finding,) = judge_link([one, replace(cut, stage="gloo")], [GOOD, replace(nodes[1], address="127.0.1.1")])
    assert "on n2 its own name stands for 127.0.1.1" in finding.remedy
    assert "GLOO_SOCKET_IFNAME" in finding.remedy
    (finding,) = judge_link([one], nodes)
    assert "one of them did not report" in finding.seen
