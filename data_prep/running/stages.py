"""How long each stage took and how much of that time its workers were at work: where a run loses its time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from data_prep.records import Progress

Busy = Callable[[float], None]
"""Called with the share of their time, in [0,1], that the workers of the present stage have been at work."""


@dataclass(frozen=True)
class Stage:
    """A stage that is over. num_items: done in it, without those that were done before; occupancy: share of the
    workers' time that they worked, None where the stage has no workers."""

    name: str
    seconds: float
    num_items: int
    occupancy: float | None


def nobody(share: float) -> None:
    """A Busy that nobody watches."""


class StageClock:
    """A Progress that hands on what it is told, and keeps the time.

    Args:
        on_progress: who is told.
        on_busy: is told the occupancy, first.
        worked_s: seconds of work that the workers have done since the beginning, and how many they are.
    """

    def __init__(
        self, on_progress: Progress, on_busy: Busy, worked_s: Callable[[], tuple[float, int]]
    ) -> None:
        self._on_progress, self._on_busy, self._worked_s = on_progress, on_busy, worked_s
        self._stages: list[Stage] = []
        self._name = ""
        self._start_s = self._start_worked_s = 0.0
        self._first = self._last = 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self._name:
            self._close()
            self._name, self._start_s, self._first = stage, time.monotonic(), done
            self._start_worked_s = self._worked_s()[0]
        self._last = done
        occupancy = self._occupancy()
        if occupancy is not None:
            self._on_busy(occupancy)
        self._on_progress(stage, done, total)

    def stages(self) -> tuple[Stage, ...]:
        """All of them; the last is over now."""
        self._close()
        return tuple(self._stages)

    def _occupancy(self) -> float | None:
        worked_s, num_workers = self._worked_s()
        spent_s = time.monotonic() - self._start_s
        if worked_s == self._start_worked_s or spent_s <= 0:
            return None
        return min(1.0, (worked_s - self._start_worked_s) / (spent_s * num_workers))

    def _close(self) -> None:
        if self._name:
            seconds = time.monotonic() - self._start_s
            self._stages.append(Stage(self._name, seconds, self._last - self._first, self._occupancy()))
            self._name = ""
