"""A training on several nodes: two processes are two pods that gather, fail, stop, are replaced and go on."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.job_folder import JobFolder
from cluster.kubernetes.children import node_children
from cluster.kubernetes.gang import End, Gang
from cluster.kubernetes.node import exit_codes, worst
from cluster.rendezvous import find
from cluster.spec import Resources, Retry, Stopping
from tests.cluster.kubernetes_pods import FOREVER, outcome, pods_of, training
from tests.waiting import until


def test_two_pods_make_one_training(tmp_path: Path) -> None:
    code = "beat(7)\nassert os.environ['GIVEN'] == '$x' and os.environ['OMP_NUM_THREADS'] == '1'"
    spec = training(tmp_path / "run", code, resources=Resources(nodes=2, processes_per_node=2))
    with pods_of(spec, tmp_path) as pods:
        pods.start(1)
        pods.start(0)
        assert pods.codes() == {0: 0, 1: 0}
        output = pods.output(0)
    assert "4 0 1" in output and "attempt 1 ok: done" in output  # what kubectl logs shows
    place = JobFolder(spec.folder)
    assert [place.rank_log(rank).read_text().strip() for rank in range(4)] == [
        f"4 {rank // 2} {rank % 2}" for rank in range(4)
    ]
    (attempt,) = place.attempts()
    assert (attempt.kind, attempt.step, attempt.exit_code) == ("ok", 7, 0)
    assert outcome(spec).state == "succeeded"
    assert place.holder() == attempt.token
    assert not list((place.job / "gang").glob("member-*"))


def test_the_ranks_of_a_pod_know_their_place(tmp_path: Path) -> None:
    resources = Resources(nodes=3, processes_per_node=4, cpus_per_process=2)
    spec = training(tmp_path / "run", "", resources=resources, code=tmp_path)
    inherited = {
        "MASTER_ADDR": "first",
        "MASTER_PORT": "29500",
        "JOB_COMPLETION_INDEX": "2",
        "NODE_RANK": "2",
    }
    made = node_children(spec, 2, "token")
    found = [find({**inherited, **child.environment}) for child in made]
    assert [(r.rank, r.local_rank, r.world, r.master_addr) for r in found if r] == [
        (8 + local, local, 12, "first") for local in range(4)
    ]
    assert all(child.command[0] == sys.executable for child in made)
    assert made[0].environment["PYTHONPATH"] == str(tmp_path)
    assert made[0].environment["CASTBANK_ATTEMPT"] == "token"


def test_a_drained_node_stops_the_training_which_goes_on_when_the_pod_is_back(tmp_path: Path) -> None:
    spec = training(tmp_path / "run", "if first:\n    " + FOREVER.replace("\n", "\n    ") + "\nbeat(9)")
    with pods_of(spec, tmp_path) as pods:
        pods.start(0)
        pods.start(1)
        for rank in range(2):
            until((spec.folder / f"up-{rank}").exists)
        pods.running[1].send_signal(signal.SIGTERM)  # preStop, or the kubelet
        assert pods.codes() == {0: 75, 1: 75}  # neither counts, and both are made anew
        assert outcome(spec).state == "preempted"
        pods.start(1)
        pods.start(0)
        assert pods.codes() == {0: 0, 1: 0}
    attempts = JobFolder(spec.folder).attempts()
    assert [attempt.kind for attempt in attempts] == ["preempted", "ok"]
    assert attempts[0].token != attempts[1].token
    assert outcome(spec).state == "succeeded"


@pytest.mark.slow
def test_a_failure_is_counted_once_and_ends_all_pods(tmp_path: Path) -> None:
    code = "if first and rank == 1: sys.exit(9)\nif first:\n    " + FOREVER.replace("\n", "\n    ")
    spec = training(tmp_path / "run", code)
    with pods_of(spec, tmp_path) as pods:
        pods.start(0)
        pods.start(1)
        assert pods.codes() == {0: 1, 1: 75}
        pods.start(0)
        pods.start(1)
        assert pods.codes() == {0: 0, 1: 0}
    failed, done = JobFolder(spec.folder).attempts()
    assert (failed.kind, failed.exit_code, failed.failed_rank) == ("failed", 9, 1)
    assert failed.reason == "process 1 of 2 ended with 9"
    assert done.kind == "ok"


@pytest.mark.parametrize(("code", "pod_code"), [(2, 2), (9, 70)])
def test_a_failure_for_good_ends_the_job_and_a_new_pod_does_nothing(
    tmp_path: Path, code: int, pod_code: int
) -> None:
    spec = training(tmp_path / "run", f"sys.exit({code} if rank else 0)", retry=Retry(max_failures=1))
    with pods_of(spec, tmp_path) as pods:
        pods.start(0)
        pods.start(1)
        assert pods.codes() == {0: pod_code, 1: pod_code}
        assert (outcome(spec).state, outcome(spec).exit_code) == ("failed", code)
        pods.start(0)
        assert pods.codes()[0] == pod_code
    assert len(JobFolder(spec.folder).attempts()) == 1


@pytest.mark.slow
def test_a_pod_that_is_gone_without_a_word_is_noticed_by_its_successor(tmp_path: Path) -> None:
    spec = training(tmp_path / "run", "if first:\n    " + FOREVER.replace("\n", "\n    "))
    with pods_of(spec, tmp_path) as pods:
        pods.start(0)
        pods.start(1)
        for rank in range(2):
            until((spec.folder / f"up-{rank}").exists)
        pods.running[1].kill()  # out of memory, or the node is gone
        pods.running[1].wait()
        pods.start(1)
        assert pods.running[0].wait(60) == 1
        pods.start(0)
        assert pods.codes() == {0: 0, 1: 0}
    attempts = JobFolder(spec.folder).attempts()
    assert [attempt.kind for attempt in attempts] == ["failed", "ok"]
    assert "pod 1 is gone without a word" in attempts[0].reason


@pytest.mark.slow
def test_a_rank_that_hangs_ends_the_attempt(tmp_path: Path) -> None:
    code = "beat(3, 'train' if rank and first else 'done')\nif first:\n    while True: signal.pause()"
    spec = training(tmp_path / "run", code, stopping=Stopping(grace_s=20, hang_s=5))
    with pods_of(spec, tmp_path) as pods:
        pods.start(0)
        pods.start(1)
        assert pods.codes() == {0: 1, 1: 75}
        pods.start(0)
        pods.start(1)
        assert pods.codes() == {0: 0, 1: 0}
    hung, done = JobFolder(spec.folder).attempts()
    assert (hung.kind, hung.failed_rank, done.kind) == ("hung", 1, "ok")


def test_a_pod_that_waits_for_others_ends_when_asked(tmp_path: Path) -> None:
    spec = training(tmp_path / "run", "")
    with pods_of(spec, tmp_path) as pods:
        pods.start(1)
        until(lambda: list((JobFolder(spec.folder).job / "gang").glob("member-1-*")))
        pods.running[1].send_signal(signal.SIGTERM)
        assert pods.codes() == {1: 75}
    assert not list((JobFolder(spec.folder).job / "gang").glob("member-*"))
    assert not JobFolder(spec.folder).attempts()


def test_a_job_that_is_cancelled_before_it_began_is_not_started_again(tmp_path: Path) -> None:
    spec = training(tmp_path / "run", "")
    JobFolder(spec.folder).cancelled.touch()
    with pods_of(spec, tmp_path) as pods:
        pods.start(0)
        pods.start(1)
        assert pods.codes() == {0: 70, 1: 70}
    assert outcome(spec).state == "cancelled"


def test_a_pytorchjob_restarts_pods_by_its_own_codes(tmp_path: Path) -> None:
    spec = training(tmp_path / "run", "sys.exit(9 if first else 0)")
    spec = replace(spec, kubernetes=replace(spec.kubernetes, kind="pytorchjob"))
    JobFolder(spec.folder).write_spec(spec)
    with pods_of(spec, tmp_path) as pods:
        pods.start(0, name="RANK")
        pods.start(1, name="RANK")
        assert pods.codes() == {0: 138, 1: 138}
        pods.start(0, name="RANK")
        pods.start(1, name="RANK")
        assert pods.codes() == {0: 0, 1: 0}


def test_a_gang_takes_the_newest_pods_and_none_of_the_last(tmp_path: Path) -> None:
    first, second = Gang(tmp_path, 0, 2), Gang(tmp_path, 1, 2)
    first.join()
    assert first.gather() == () and not second.sealed()
    second.join()
    first.seal(members := first.gather(), "one")
    assert len(members) == 2 and second.sealed() and second.token == "one"
    assert first.replaced() is None
    first.report(End(0, "ok", "", 0, "h", 1.0))
    assert second.num_reports() == 1
    newer = Gang(tmp_path, 1, 2)
    newer.join()
    assert first.replaced() == second.replaced() == 1 and not newer.sealed()
    again = Gang(tmp_path, 0, 2)
    again.join()
    again.seal(again.gather(), "two")
    assert newer.sealed() and not second.sealed()
    assert newer.num_reports() == 0
    stale = tmp_path / "job" / "gang" / "member-1-dead"
    stale.touch()
    os.utime(stale, (1, 1))
    last = Gang(tmp_path, 0, 2)
    last.join()
    assert (
        last.gather() == ()
    )  # pod 1 is not there: one file is of the last gang, one of nobody who still waits


def test_how_an_attempt_ended_is_told_by_the_pod_that_knows_most() -> None:
    ok, stopped = End(0, "ok", "", 0, "a", 1.0), End(75, "preempted", "", 1, "b", 2.0)
    crashed, bad = End(139, "failed", "crash", 2, "c", 3.0), End(2, "failed", "bad input", 3, "d", 4.0)
    gone = End(75, "gone", "", 4, "e", 1.0)
    assert worst({0: ok, 1: ok}, 2) == ok
    assert worst({0: ok, 1: crashed, 2: gone}, 3) == crashed
    assert worst({0: crashed, 1: bad}, 2) == bad
    assert worst({0: ok, 1: stopped}, 3) == stopped
    assert worst({0: stopped, 1: replace(stopped, code=137)}, 2).code == 137
    assert worst({0: ok}, 2).code == 137
    assert exit_codes("done", 0) == (0, 0)
    assert exit_codes("again", 9) == (1, 75)
    assert exit_codes("fail", 3) == (3, 3)
    assert exit_codes("fail", 139) == (70, 70)
    assert exit_codes("requeue", 75) == (75, 75)


TALK = """
import torch, torch.distributed as dist
dist.init_process_group("gloo", init_method="env://")
total = torch.tensor([float(rank + 1)])
dist.all_reduce(total)
beat(1, "done")
print("sum", total.item())
"""


@pytest.mark.slow
def test_the_ranks_of_two_pods_reach_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.distributed over gloo, four ranks of two pods, with what the pods are told and nothing else."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    spec = training(tmp_path / "run", TALK, resources=Resources(nodes=2, processes_per_node=2))
    with pods_of(spec, tmp_path) as pods:
        pods.start(0)
        pods.start(1)
        assert pods.codes(240) == {0: 0, 1: 0}
    for rank in range(4):
        assert "sum 10.0" in JobFolder(spec.folder).rank_log(rank).read_text()
