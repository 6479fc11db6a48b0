"""How a job stands, from what its folder and its scheduler say; and whether those it waits for have succeeded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cluster.job_folder import JobFolder, Outcome
from cluster.spec import JobError, Status

ENDED = ("succeeded", "failed", "cancelled")


def still_missing(after: Sequence[Path]) -> bool:
    """Whether one of these jobs has not succeeded yet.

    Raises:
        JobError: one has ended otherwise, so that waiting is vain.
    """
    outcomes = {folder: JobFolder(folder).outcome() for folder in after}
    for folder, outcome in outcomes.items():
        if outcome is not None and outcome.state in ("failed", "cancelled"):
            raise JobError(f"the job of {folder}, which this one comes after, {_past(outcome)}")
    return any(outcome is None or outcome.state != "succeeded" for outcome in outcomes.values())


def combined(outcome: Outcome | None, asked: Status) -> Status:
    """What a person should be told: an end that the job itself noted is surer than what its scheduler remembers,
    unless the scheduler has taken it up again."""
    if outcome is None or asked.state in ("queued", "running"):
        return asked
    return Status(outcome.state, outcome.reason)


def _past(outcome: Outcome) -> str:
    return "has failed" if outcome.state == "failed" else "was cancelled"
