"""The pulse of every rank, as files that all nodes see: alive, at which step, doing what.

A rank's own thread writes ``heartbeats/rank-K.json`` every few seconds, so a process that is gone or frozen stops
being *alive*, and one whose main thread is stuck stays alive at an old step: the two are told apart.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

from cluster.job_folder import JOB

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


def silent(folder: Path, limit_s: float) -> Silent | None:
    """The rank that has been silent longest, where that is longer than ``limit_s``; ranks that are done are not."""
    now_s = time.time()
    worst: Silent | None = None
    for beat in read(folder):
        gone_s, stuck_s = now_s - beat.alive_at_s, now_s - beat.step_at_s
        if beat.phase == DONE or (gone_s <= limit_s and stuck_s <= limit_s + OWN_WATCH_S):
            continue
        found = Silent(beat.rank, beat.host, beat.phase, beat.step, max(gone_s, stuck_s), gone_s > limit_s)
        if worst is None or found.silent_s > worst.silent_s:
            worst = found
    return worst


def last_step(folder: Path) -> int:
    """The furthest step of any rank; 0 where there are no ranks."""
    return max((beat.step for beat in read(folder)), default=0)


def last_seen_s(folder: Path) -> float:
    """Unix time at which any rank was last alive; 0 where there are no ranks."""
    return max((beat.alive_at_s for beat in read(folder)), default=0.0)


def host_of(folder: Path, rank: int) -> str:
    """Where a rank ran; empty where it never said so."""
    return next((beat.host for beat in read(folder) if beat.rank == rank), "")
