"""Watches the processes of one attempt until all have ended: passes a request to stop on, sees what hangs."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from cluster import heartbeats
from cluster.job_folder import JobFolder
from cluster.processes import Ended, Group
from cluster.spec import EXIT_KILLED, EXIT_REQUEUE, JobSpec

POLL_S = 0.2


class TakenOverError(Exception):
    """Another supervisor has claimed the job, as where its scheduler thought this host lost."""


@dataclass(frozen=True)
class Seen:
    """How an attempt ended. kind: as ``Attempt``'s; rank, host: whose failure says most and where it ran."""

    code: int
    kind: str
    reason: str
    rank: int | None = None
    host: str = ""


def watch(spec: JobSpec, token: str, group: Group, stop_wanted: Callable[[], bool]) -> Seen:
    """Until every process of ``group`` has ended, by itself or because it had to.

    Args:
        spec: of the job.
        token: of the attempt.
        group: its processes.
        stop_wanted: whether the job has been asked to end.

    Raises:
        TakenOverError: another attempt holds the job now; this one's processes have been killed.
    """
    place, limits, ranks = JobFolder(spec.folder), spec.stopping, Ranks(spec, token)
    told_s: float | None = None
    while True:
        if told_s is None and stop_wanted():
            told_s = time.monotonic()
            group.signal(signal.SIGTERM)
        if other := place.overtaken_by(token):
            group.kill()
            raise TakenOverError(f"attempt {other} has taken the job over; this supervisor ends")
        if (ended := group.ended()) is not None:
            return _account(spec, token, ended, told_s is not None)
        if told_s is not None and time.monotonic() - told_s > limits.grace_s:
            group.kill()
            reason = f"killed: no end within {limits.grace_s} s of the request"
            return Seen(EXIT_KILLED, "preempted", reason)
        if (hung := ranks.hung()) is not None:
            group.kill()
            return hung
        time.sleep(POLL_S)


class Ranks:
    """The ranks of an attempt, of which none may be silent for longer than ``stopping.hang_s``.

    On Ray they are counted, and their time runs, from when the driver has placed them: until then they wait for
    room, and an elastic training begins with fewer.
    """

    def __init__(self, spec: JobSpec, token: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._spec, self._token, self._clock = spec, token, clock
        self._place = JobFolder(spec.folder)
        self._ears = heartbeats.Ears(self._place.heartbeats, token, clock)
        self._count = None if spec.place == "ray" else spec.world
        self._placed_s = clock()

    def hung(self) -> Seen | None:
        """How the attempt ends where a rank hangs, or was never heard of; None while all is well."""
        limit_s = self._spec.stopping.hang_s
        if (silent := self._ears.silent(limit_s)) is not None:
            return Seen(1, "hung", silent.text(), silent.rank, silent.host)
        if not self._spec.ranks:
            return None
        if self._count is None:
            self._count = heartbeats.world(self._place.job, self._token)
            self._placed_s = self._clock()
        if self._count is None or self._clock() - self._placed_s <= limit_s:
            return None
        if not (gone := self._ears.unheard(self._count)):
            return None
        reason = f"rank {gone[0]} of {self._count} was never heard of in {limit_s} s"
        return Seen(1, "hung", reason, gone[0])


def _account(spec: JobSpec, token: str, ended: Ended, stopping: bool) -> Seen:
    if ended.code == 0:
        return Seen(0, "ok", "")
    if ended.code == EXIT_REQUEUE or (stopping and ended.code == 128 + signal.SIGTERM):
        return Seen(EXIT_REQUEUE, "preempted", "stopped on request; it goes on where it was")
    place = JobFolder(spec.folder)
    noted = place.failed_rank(token)  # where one process stands for many, such as srun
    rank, host = noted or (ended.index, heartbeats.host_of(place.heartbeats, ended.index))
    how = f"was killed by {_signal_name(ended.code)}" if ended.code > 128 else f"ended with {ended.code}"
    return Seen(ended.code, "failed", f"process {rank} of {spec.world} {how}", rank, host)


def _signal_name(code: int) -> str:
    try:
        return signal.Signals(code - 128).name
    except ValueError:
        return f"signal {code - 128}"
