"""What the doctor finds in a real Slurm of two nodes: all is well, nodes are gone, all is full, nobody is there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.checks import slurm
from cluster.checks.finding import Answer, Finding
from cluster.checks.plan import Plan
from cluster.checks.slurm import Node
from cluster.checks.trial import trial
from cluster.spec import SlurmOptions
from tests.cluster.slurm_lab import lab as slurm_lab
from tests.cluster.slurm_lab.lab import Lab
from tests.waiting import until

SINFO = """n1|gpu*|idle|gpu:a100:8(S:0-1)
n2|gpu*|mix|gpu:a100:8(S:0-1)
n1|all|idle|gpu:a100:8(S:0-1)
n3|all|down*|(null)
n4|all|idle~|(null)
n5|all|drain|(null)
"""


def test_nodes_are_read_as_sinfo_prints_them() -> None:
    found = slurm.nodes_of("\n" + SINFO)
    assert [node.state for node in found] == ["idle", "mix", "idle", "down", "idle", "drain"]
    assert found[0] == Node("n1", "gpu", "idle", True)
    assert [node.name for node in slurm.chosen(found, 4)] == ["n1", "n4", "n2"]  # each once, free ones first
    assert [node.name for node in slurm.chosen(found, 1)] == ["n1"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("srun: error: Unable to allocate resources: Requested nodes are busy", True),
        ("srun: error: Immediate execution impossible, insufficient priority\nsrun: immediate", True),
        ("srun: error: Unable to allocate resources: Invalid account", False),
    ],
)
def test_busy_is_no_fault(error: str, expected: bool) -> None:
    assert slurm.busy(Answer(1, "", error)) is expected


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if reason := slurm_lab.missing():
        pytest.skip(reason)
    with slurm_lab.running(tmp_path_factory.mktemp("slurm")) as made:
        yield made


@pytest.fixture
def conf(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setenv("SLURM_CONF", str(lab.conf))
    monkeypatch.setenv("SLURM_JOB_ID", "77")  # as inside somebody's allocation, which must not matter
    monkeypatch.setenv("SLURM_NTASKS", "3")
    return lab


def asked(shared: Path, plan: Plan, options: SlurmOptions) -> dict[str, Finding]:
    with trial(shared) as tried:
        return {finding.name: finding for finding in slurm.check(plan, options, tried)}


@pytest.mark.slow
def test_a_slurm_that_is_well(conf: Lab, tmp_path: Path) -> None:
    found = asked(tmp_path, Plan(), SlurmOptions())
    assert {name: finding.state for name, finding in found.items()} == {
        "slurm": "ok",
        "slurm accounting": "warning",  # the lab has none
        "partition debug": "ok",
        "partition other": "ok",
        "node n1": "ok",
        "node n2": "ok",
        "link n1 - n2": "ok",
    }
    assert found["partition debug"].seen.startswith("2 idle; limit 1:00:00, up; 0 with GPUs")
    assert "castbank 0." in found["node n1"].seen and "locks and renames work" in found["node n1"].seen
    assert "gloo" in found["link n1 - n2"].seen


@pytest.mark.slow
def test_what_may_be_wrong_with_a_slurm(conf: Lab, tmp_path: Path) -> None:
    found = asked(tmp_path, Plan(python="/none/python"), SlurmOptions(partition="debug"))
    assert found["node n1"].seen == "cannot run /none/python: No such file or directory"
    assert "every node sees" in found["node n1"].remedy
    found = asked(tmp_path, Plan(), SlurmOptions(partition="gpu"))
    assert found["partition gpu"].remedy == "set slurm.partition to one of debug, other"
    found = asked(tmp_path, Plan(1, 10), SlurmOptions(account="nobody", extra=("--gres=gpu:4",)))
    assert found["node n1"].state == "broken" and "gres" in found["node n1"].seen

    subprocess.run(
        ["scontrol", "update", "NodeName=n2", "State=DRAIN", "Reason=broken fan"],
        env=conf.environment,
        check=True,
    )
    try:
        found = asked(tmp_path, Plan(), SlurmOptions())
        assert found["partition debug"].state == "warning"
        assert found["partition debug"].remedy == "sinfo -R says why (n2: broken fan)"
        assert "node n2" not in found and found["node n1"].state == "ok"
    finally:
        subprocess.run(
            ["scontrol", "update", "NodeName=n2", "State=RESUME"], env=conf.environment, check=True
        )
    conf.wait_for_nodes()


@pytest.mark.slow
def test_a_node_that_is_not_free_is_not_waited_for(conf: Lab, tmp_path: Path) -> None:
    hold = [sys.executable, "-c", "import signal; print('here', flush=True); signal.pause()"]
    words = ["srun", "-p", "debug", "-w", "n1", "-n1", "-c1", *hold]
    with subprocess.Popen(words, env=conf.environment, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "here\n"
        try:
            until(lambda: "n1|mix" in conf.ask("sinfo", "-N", "-h", "-p", "debug", "-o", "%N|%t"))
            found = asked(tmp_path, Plan(wait_s=10), SlurmOptions(partition="debug", extra=("-c4",)))
        finally:
            holder.terminate()
    assert (found["node n1"].state, found["node n1"].seen) == ("warning", "not free within 10 s")
    assert found["node n2"].state == "ok", found["node n2"]
    conf.wait_for_nodes()


@pytest.mark.slow
def test_a_controller_that_is_gone(conf: Lab, tmp_path: Path) -> None:
    conf.stop_controller()
    try:
        found = asked(tmp_path, Plan(), SlurmOptions())
    finally:
        conf.start_controller()
        conf.wait_for_nodes()
    assert list(found) == ["slurm"]
    assert found["slurm"].state == "broken" and "is DOWN" in found["slurm"].seen
