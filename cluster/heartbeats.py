"""The pulse of every rank, as files that all nodes see: alive, at which step, doing what.

A rank's own thread writes ``heartbeats/rank-K.json`` every few seconds, so a process that is gone or frozen stops
being *alive*, and one whose main thread is stuck stays alive at an old step: the two are told apart.

Who watches an attempt has ``Ears``, which go by when a heartbeat changed, not by the times in it: the clocks of two
hosts may differ by more than any limit.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cluster.job_folder import JOB, write_atomic

WORLD = "world"  # in FOLDER/job: how many ranks an attempt has begun with
DONE = "done"  # the phase of a rank that has nothing more to do
BEAT_S = 2.0  # between two writes of a rank
OWN_WATCH_S = (
    5 * BEAT_S
)  # a rank whose thread lives ends itself when it is stuck, and shows where; it may do so first


@dataclass(frozen=True)
class Heartbeat:
    """What a rank last said. phase: what its main thread does; step: updates done; step_at_s: when step or phase
    last changed; alive_at_s: when its thread last wrote. Unix times of its host."""

    rank: int
    host: str
    pid: int
    token: str
    phase: str
    step: int
    step_at_s: float
    alive_at_s: float


@dataclass(frozen=True)
class Silent:
    """A rank that has not moved for ``silent_s`` seconds; frozen: nor was its thread seen."""

    rank: int
    host: str
    phase: str
    step: int
    silent_s: float
    frozen: bool

    def text(self) -> str:
        """For a person."""
        how = "not seen" if self.frozen else f"stuck in {self.phase!r}"
        return f"rank {self.rank} on {self.host} {how} for {self.silent_s:.0f} s at step {self.step}"


def read(folder: Path) -> list[Heartbeat]:
    """The last word of every rank, in their order."""
    found = []
    for path in folder.glob("rank-*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            found.append(Heartbeat(**json.loads(path.read_text(encoding="utf-8"))))
    return sorted(found, key=lambda beat: beat.rank)


def base_of(folder: Path) -> Path:
    """What ranks write into: ``FOLDER/job`` of a job, the folder itself of a run that no job made."""
    return folder / JOB if (folder / JOB / "spec.json").is_file() else folder


def path_of(base: Path, rank: int) -> Path:
    """The heartbeat of a rank."""
    return base / "heartbeats" / f"rank-{rank}.json"


def forget(folder: Path) -> None:
    """Remove what an earlier attempt said."""
    for path in folder.glob("rank-*.json"):
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Heard:
    """The last word of a rank. moved_s, alive_s: when its main thread, and its own, had last been seen to go on, by
    the clock of who listens."""

    beat: Heartbeat
    moved_s: float
    alive_s: float


class Ears:
    """What one watcher hears of the ranks of an attempt; what those of an earlier one still say is left out."""

    def __init__(self, folder: Path, token: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._token, self._clock = folder, token, clock
        self._heard: dict[int, _Heard] = {}

    def listen(self) -> None:
        """Take in what the ranks say now."""
        now_s = self._clock()
        for beat in read(self._folder):
            if beat.token != self._token:
                continue
            last = self._heard.get(beat.rank)
            moved_s = alive_s = now_s
            if last is not None and _place(last.beat) == _place(beat):
                moved_s = last.moved_s
            if last is not None and last.beat.alive_at_s == beat.alive_at_s:
                alive_s = last.alive_s
            self._heard[beat.rank] = _Heard(beat, moved_s, alive_s)

    def silent(self, limit_s: float) -> Silent | None:
        """The rank that has been silent longest, where that is longer than ``limit_s``; ranks that are done are
        not. A rank whose thread lives has some seconds more, in which it can end itself and show where it is."""
        self.listen()
        now_s, worst = self._clock(), None
        for heard in self._heard.values():
            beat, gone_s, stuck_s = heard.beat, now_s - heard.alive_s, now_s - heard.moved_s
            if beat.phase == DONE or (gone_s <= limit_s and stuck_s <= limit_s + OWN_WATCH_S):
                continue
            silent_s = max(gone_s, stuck_s)
            if worst is None or silent_s > worst.silent_s:
                worst = Silent(beat.rank, beat.host, beat.phase, beat.step, silent_s, gone_s > limit_s)
        return worst

    def unheard(self, num_ranks: int) -> list[int]:
        """Those of the first ``num_ranks`` ranks that have not said a word yet."""
        self.listen()
        return sorted(set(range(num_ranks)) - set(self._heard))


def _place(beat: Heartbeat) -> tuple[str, int, float]:
    """Where a main thread is; it may stay in a phase and at a step, and still go on."""
    return beat.phase, beat.step, beat.step_at_s


def note_world(base: Path, token: str, num_ranks: int) -> None:
    """Say with how many ranks an attempt has begun, where only who placed them knows."""
    write_atomic(base / WORLD, json.dumps({"token": token, "num_ranks": num_ranks}))


def world(base: Path, token: str) -> int | None:
    """With how many ranks the attempt of this token has begun, as was noted; None where it was not."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((base / WORLD).read_text(encoding="utf-8"))
        return int(found["num_ranks"]) if found["token"] == token else None
    return None


def last_step(folder: Path, token: str = "") -> int:
    """The furthest step of any rank, of one attempt where its token is given; 0 where there are no ranks."""
    return max((beat.step for beat in read(folder) if token in ("", beat.token)), default=0)


def last_seen_s(folder: Path) -> float:
    """Unix time at which any rank was last alive; 0 where there are no ranks."""
    return max((beat.alive_at_s for beat in read(folder)), default=0.0)


def host_of(folder: Path, rank: int) -> str:
    """Where a rank ran; empty where it never said so."""
    return next((beat.host for beat in read(folder) if beat.rank == rank), "")
