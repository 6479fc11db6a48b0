"""Heartbeats as others read them: who is there, who has not moved, who is gone; ranks that write them are real."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path

from cluster.heartbeats import (
    DONE,
    OWN_WATCH_S,
    Heartbeat,
    base_of,
    forget,
    host_of,
    last_step,
    path_of,
    read,
    silent,
)


def put(base: Path, beat: Heartbeat) -> None:
    path = path_of(base, beat.rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(beat)))


def beat(rank: int, phase: str = "train", stuck_s: float = 0.0, gone_s: float = 0.0) -> Heartbeat:
    now_s = time.time()
    return Heartbeat(rank, f"n{rank}", 100 + rank, "t", phase, 10 + rank, now_s - stuck_s, now_s - gone_s)


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
    forget(folder)
    assert read(folder) == []


def test_the_rank_that_is_silent_longest(tmp_path: Path) -> None:
    folder = tmp_path / "heartbeats"
    put(tmp_path, beat(0, stuck_s=90.0))
    put(tmp_path, beat(1, DONE, stuck_s=9000.0, gone_s=9000.0))
    assert silent(folder, 100.0) is None
    put(tmp_path, beat(2, "checkpoint", stuck_s=200.0))
    put(tmp_path, beat(3, stuck_s=150.0, gone_s=150.0))
    found = silent(folder, 100.0)
    assert found is not None
    assert found.text() == "rank 2 on n2 stuck in 'checkpoint' for 200 s at step 12"
    put(tmp_path, replace(beat(3), alive_at_s=time.time() - 300.0))
    found = silent(folder, 100.0)
    assert found is not None
    assert found.text() == "rank 3 on n3 not seen for 300 s at step 13"


def test_a_rank_that_can_say_where_it_is_stuck_may_do_so_first(tmp_path: Path) -> None:
    put(tmp_path, beat(0, stuck_s=100.0 + OWN_WATCH_S / 2))
    assert silent(tmp_path / "heartbeats", 100.0) is None


def test_a_job_keeps_them_in_its_own_folder(tmp_path: Path) -> None:
    assert base_of(tmp_path) == tmp_path
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "spec.json").touch()
    assert base_of(tmp_path) == tmp_path / "job"
