"""Stages are timed from the progress that is reported, and their occupancy from the seconds that were worked."""

from __future__ import annotations

import pytest

from data_prep.running import stages
from data_prep.running.stages import StageClock


def test_each_stage_has_its_time_its_items_and_its_occupancy(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"s": 100.0, "worked": 0.0}
    monkeypatch.setattr(stages.time, "monotonic", lambda: now["s"])
    told: list[object] = []
    clock = StageClock(lambda *a: told.append(a), told.append, lambda: (now["worked"], 2))

    def later(seconds: float, worked_s: float) -> None:
        now["s"] += seconds
        now["worked"] += worked_s

    clock("analyse", 3, 10)
    later(4.0, 6.0)
    clock("analyse", 10, 10)
    later(1.0, 0.0)
    clock("link", 0, 1)
    later(2.0, 0.0)
    clock("link", 1, 1)
    clock("pack", 0, 4)
    later(2.0, 4.0)
    clock("pack", 4, 4)
    assert told == [
        ("analyse", 3, 10),
        0.75,
        ("analyse", 10, 10),
        ("link", 0, 1),
        ("link", 1, 1),
        ("pack", 0, 4),
        1.0,
        ("pack", 4, 4),
    ]
    assert [(s.name, s.seconds, s.num_items, s.occupancy) for s in clock.stages()] == [
        ("analyse", 5.0, 7, 0.6),
        ("link", 2.0, 1, None),
        ("pack", 2.0, 4, 1.0),
    ]
