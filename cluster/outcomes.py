"""How a job stands, from what its folder and its scheduler say; whether those it waits for have succeeded; and what
became of an attempt that nobody saw end."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cluster import heartbeats
from cluster.job_folder import Attempt, JobFolder, Outcome
from cluster.spec import JobError, Status

ENDED = ("succeeded", "failed", "cancelled")


def still_missing(after: Sequence[Path]) -> bool:
    """Whether one of these jobs has not succeeded yet.

    Raises:
        JobError: one has ended otherwise, so that waiting is vain.
    """
    outcomes = {folder: JobFolder(folder).outcome() for folder in after}
    for folder, outcome in outcomes.items():
        if (past := _in_vain(JobFolder(folder), outcome)) is not None:
            raise JobError(f"the job of {folder}, which this one comes after, {past}")
    return any(outcome is None or outcome.state != "succeeded" for outcome in outcomes.values())


def close_cut_off(place: JobFolder) -> Attempt | None:
    """Note the end of an attempt whose supervisor did not live to note it; the attempt, where there was one."""
    lost = None
    for attempt in place.attempts():
        if attempt.end_s is None:
            step = heartbeats.last_step(place.heartbeats, attempt.token)
            lost = replace(
                attempt, end_s=_last_sign_s(place, attempt), kind="lost", reason="cut off", step=step
            )
            place.note_attempt(lost)
    return lost


def _last_sign_s(place: JobFolder, attempt: Attempt) -> float:
    """Unix time at which a process of an attempt was last alive or wrote something."""
    signs_s = [attempt.start_s, heartbeats.last_seen_s(place.heartbeats)]
    for path in place.logs.glob("rank-*.log"):
        with contextlib.suppress(OSError):  # of a part that has not begun
            signs_s.append(path.stat().st_mtime)
    return max(signs_s)


def combined(outcome: Outcome | None, asked: Status) -> Status:
    """What a person should be told: an end that the job itself noted is surer than what its scheduler remembers,
    unless the scheduler has taken it up again."""
    if outcome is None or asked.state in ("queued", "running"):
        return asked
    return Status(outcome.state, outcome.reason)


def _in_vain(place: JobFolder, outcome: Outcome | None) -> str | None:
    """What became of a job that will not succeed; None where it may, or has."""
    state = outcome.state if outcome is not None else "running"
    if state == "failed":
        return "has failed"
    return (
        "was cancelled"
        if state == "cancelled" or (state != "succeeded" and place.cancelled.exists())
        else None
    )
