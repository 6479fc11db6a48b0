"""One pod among those of a training, whose peers are acted here, by a clock that runs only while it waits."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from cluster import heartbeats
from cluster.heartbeats import Heartbeat, path_of
from cluster.job_folder import Attempt, JobFolder
from cluster.kubernetes import node as node_module
from cluster.kubernetes.gang import Decision, End, Gang
from cluster.kubernetes.node import Node
from cluster.spec import Resources, Stopping
from tests.cluster.kubernetes_pods import outcome, pods_of, training

OK = End(0, "ok", "", 0, "h", 1.0)
HANG_S, EXPORT_S = 3000, 2000.0


class World:
    """Time, for a pod; ``act`` is what its peers do at every moment of it."""

    def __init__(self, act: Callable[[float], None]) -> None:
        self.now_s, self._act = 0.0, act

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, _: float) -> None:
        self.now_s += 10.0
        self._act(self.now_s)

    def time(self) -> float:
        return time.time()


def gang_of(
    folder: Path, own: int, act: Callable[[Gang, float], None], monkeypatch: pytest.MonkeyPatch
) -> Node:
    """Pod ``own`` of two, which have begun an attempt, with the other acted by ``act``."""
    training(folder, "", stopping=Stopping(grace_s=20, hang_s=HANG_S))
    node, peer = Node(folder, own), Gang(folder, 1 - own, 2)
    first, second = (node._gang, peer) if own == 0 else (peer, node._gang)
    first.join()
    second.join()
    first.seal(first.gather(), "t")
    assert second.sealed()
    JobFolder(folder).note_attempt(Attempt(1, "t", "h", "", time.time()))
    world = World(lambda now_s: act(peer, now_s))
    monkeypatch.setattr(node_module, "time", world)
    node._ears = heartbeats.Ears(JobFolder(folder).heartbeats, "t", world.monotonic)
    return node


def beat(folder: Path, rank: int, at_s: float, phase: str = "export") -> None:
    path = path_of(JobFolder(folder).job, rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(Heartbeat(rank, "h", 1, "t", phase, 9, at_s, at_s))))


def test_a_pod_waits_for_as_long_as_the_first_one_exports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"

    def act(peer: Gang, now_s: float) -> None:
        beat(folder, 0, now_s)
        if now_s == EXPORT_S:
            peer.report(OK)
        if now_s == EXPORT_S + 60:  # it hears the others out, and decides
            peer.decide(Decision("t", 0, 0.0))

    assert gang_of(folder, 1, act, monkeypatch)._follow() == 0


def test_a_pod_does_not_wait_for_one_that_is_not_heard_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, last_s = tmp_path / "run", [0.0]

    def act(_: Gang, now_s: float) -> None:
        last_s[0] = now_s
        if now_s < EXPORT_S:
            beat(folder, 0, now_s)

    assert gang_of(folder, 1, act, monkeypatch)._follow() == 75
    assert EXPORT_S + HANG_S < last_s[0] < EXPORT_S + HANG_S + 200


def test_a_pod_that_is_to_go_asks_the_one_that_exports_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"

    def act(peer: Gang, now_s: float) -> None:
        beat(folder, 0, now_s)
        if now_s == 500.0:
            node._ask()
        if JobFolder(folder).stop.exists():
            peer.report(End(75, "preempted", "", 0, "h", 1.0))
            peer.decide(Decision("t", 75, 0.0))

    node = gang_of(folder, 1, act, monkeypatch)
    assert node._follow() == 75
    assert JobFolder(folder).stop.exists()


def test_the_first_pod_waits_for_the_others_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"

    def act(peer: Gang, now_s: float) -> None:
        beat(folder, 1, now_s)
        if now_s == EXPORT_S:
            peer.report(OK)

    node = gang_of(folder, 0, act, monkeypatch)
    node._gang.report(OK)
    assert node._conclude() == 0
    assert [attempt.kind for attempt in JobFolder(folder).attempts()] == ["ok"]


def test_an_attempt_whose_pod_was_replaced_is_lost_and_not_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    node = gang_of(folder, 0, lambda *_: None, monkeypatch)
    node._gang.report(End(75, "gone", "another pod failed or was replaced", 0, "h", 1.0))
    Gang(folder, 1, 2).join()  # in the place of one whose ranks had ended well
    (Gang(folder, 1, 2)._folder / "end-t-1.json").write_text(json.dumps(asdict(OK)))
    assert node._conclude() == 1  # tried again
    (attempt,) = JobFolder(folder).attempts()
    assert (attempt.kind, attempt.reason) == ("lost", "another pod failed or was replaced")


def test_a_row_of_attempts_that_were_cut_off_ends_the_job(tmp_path: Path) -> None:
    """As where pod 0 has too little memory for itself."""
    spec = training(tmp_path / "run", "", resources=Resources(nodes=2))
    for number in (1, 2, 3):
        JobFolder(spec.folder).note_attempt(Attempt(number, f"t{number}", "h", "", 1.0))
    with pods_of(spec, tmp_path) as pods:
        pods.start(0)
        pods.start(1)
        assert pods.codes() == {0: 70, 1: 70}
    assert outcome(spec).state == "failed"
    assert "crash loop: 3" in outcome(spec).reason
