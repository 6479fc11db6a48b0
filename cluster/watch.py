"""Watches the processes of one attempt until all have ended: passes a request to stop on, sees what hangs."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from cluster import heartbeats
from cluster.job_folder import JobFolder
from cluster.processes import Ended, Group
from cluster.spec import EXIT_REQUEUE, JobSpec

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
    place, limits = JobFolder(spec.folder), spec.stopping
    told_s: float | None = None
    began_s = time.monotonic()
    while True:
        if told_s is None and stop_wanted():
            told_s = time.monotonic()
            group.signal(signal.SIGTERM)
        if (holder := place.holder()) not in ("", token):
            group.kill()
            raise TakenOverError(f"attempt {holder} has taken the job over; this supervisor ends")
        if (ended := group.ended()) is not None:
            return _account(spec, token, ended, told_s is not None)
        if told_s is not None and time.monotonic() - told_s > limits.grace_s:
            group.kill()
            reason = f"killed: no end within {limits.grace_s} s of the request"
            return Seen(EXIT_REQUEUE, "preempted", reason)
        if (silent := heartbeats.silent(place.heartbeats, limits.hang_s)) is not None:
            group.kill()
            return Seen(1, "hung", silent.text(), silent.rank, silent.host)
        if spec.ranks and time.monotonic() - began_s > limits.hang_s and (gone := _unheard(spec)):
            group.kill()
            reason = f"rank {gone[0]} of {spec.world} was never heard of in {limits.hang_s} s"
            return Seen(1, "hung", reason, gone[0])
        time.sleep(POLL_S)


def _unheard(spec: JobSpec) -> list[int]:
    """Ranks that have not said anything yet."""
    heard = {beat.rank for beat in heartbeats.read(JobFolder(spec.folder).heartbeats)}
    return sorted(set(range(spec.world)) - heard)


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
