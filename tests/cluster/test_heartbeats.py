"""Heartbeats as others read them: who is there, who has not moved, who is gone; ranks that write them are real."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from cluster.heartbeats import (
    DONE,
    OWN_WATCH_S,
    Ears,
    Heartbeat,
    base_of,
    forget,
    host_of,
    last_step,
    note_world,
    path_of,
    read,
    world,
)


def put(base: Path, beat: Heartbeat) -> None:
    path = path_of(base, beat.rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(beat)))


def beat(rank: int, phase: str = "train", at_s: float = 0.0) -> Heartbeat:
    """at_s: by the clock of the rank's host."""
    return Heartbeat(rank, f"n{rank}", 100 + rank, "t", phase, 10 + rank, at_s, at_s)


class Clock:
    """One that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_last_word_of_every_rank(tmp_path: Path) -> None:
    folder = tmp_path / "heartbeats"
    assert read(folder) == []
    assert last_step(folder) == 0
    beats = [beat(0), beat(2), beat(10)]
    for item in reversed(beats):
        put(tmp_path, item)
    (folder / "rank-3.json").write_text('{"rank": 3, "ho')  # of a writer that has no rename
    (folder / ".rank-4.json").write_text("")
    assert read(folder) == beats
    assert (last_step(folder), host_of(folder, 2), host_of(folder, 3)) == (20, "n2", "")
    assert (last_step(folder, "t"), last_step(folder, "another")) == (20, 0)
    forget(folder)
    assert read(folder) == []


def test_the_rank_that_is_silent_longest(tmp_path: Path) -> None:
    clock = Clock()
    ears = Ears(tmp_path / "heartbeats", "t", clock)
    put(tmp_path, beat(1, DONE))
    put(tmp_path, beat(2, "checkpoint"))
    assert ears.silent(100.0) is None
    clock.now_s = 50.0
    put(tmp_path, beat(3))
    assert ears.silent(100.0) is None
    clock.now_s = 200.0
    put(tmp_path, replace(beat(2, "checkpoint"), alive_at_s=200.0))
    found = ears.silent(100.0)
    assert found is not None
    assert found.text() == "rank 2 on n2 stuck in 'checkpoint' for 200 s at step 12"
    put(tmp_path, beat(2, "train", 200.0))
    found = ears.silent(100.0)
    assert found is not None
    assert found.text() == "rank 3 on n3 not seen for 150 s at step 13"
    assert ears.unheard(5) == [0, 4]


def test_the_clocks_of_two_hosts_may_differ(tmp_path: Path) -> None:
    """A rank whose host is days behind or ahead is heard as well as any other."""
    clock = Clock()
    ears = Ears(tmp_path / "heartbeats", "t", clock)
    for now_s in range(0, 1000, 50):
        clock.now_s = float(now_s)
        put(tmp_path, beat(0, at_s=now_s - 1e6))
        put(tmp_path, beat(1, at_s=now_s + 1e6))
        assert ears.silent(100.0) is None
    clock.now_s = 1100.0
    found = ears.silent(100.0)
    assert found is not None
    assert (found.rank, found.silent_s) == (0, 150.0)


def test_a_rank_goes_on_within_a_phase_and_a_step(tmp_path: Path) -> None:
    clock = Clock()
    ears = Ears(tmp_path / "heartbeats", "t", clock)
    for now_s in (0.0, 90.0, 180.0, 270.0):
        clock.now_s = now_s
        put(tmp_path, beat(0, "export", now_s))
        assert ears.silent(100.0) is None


def test_what_an_earlier_attempt_still_says_is_not_heard(tmp_path: Path) -> None:
    clock = Clock()
    ears = Ears(tmp_path / "heartbeats", "t", clock)
    put(tmp_path, replace(beat(0), token="earlier"))
    assert ears.unheard(1) == [0]
    clock.now_s = 1000.0
    assert ears.silent(100.0) is None


def test_a_rank_that_can_say_where_it_is_stuck_may_do_so_first(tmp_path: Path) -> None:
    clock = Clock()
    ears = Ears(tmp_path / "heartbeats", "t", clock)
    for now_s, is_heard_out in ((0.0, True), (100.0 + OWN_WATCH_S / 2, True), (100.5 + OWN_WATCH_S, False)):
        clock.now_s = now_s
        put(tmp_path, replace(beat(0), alive_at_s=now_s))
        assert (ears.silent(100.0) is None) == is_heard_out


def test_the_number_of_ranks_is_that_of_one_attempt(tmp_path: Path) -> None:
    assert world(tmp_path, "t") is None
    note_world(tmp_path, "t", 3)
    assert (world(tmp_path, "t"), world(tmp_path, "another")) == (3, None)


def test_a_job_keeps_them_in_its_own_folder(tmp_path: Path) -> None:
    assert base_of(tmp_path) == tmp_path
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "spec.json").touch()
    assert base_of(tmp_path) == tmp_path / "job"
