"""The job's own word and its scheduler's, joined."""

from __future__ import annotations

import pytest

from cluster.job_folder import Outcome
from cluster.outcomes import combined
from cluster.spec import State, Status


@pytest.mark.parametrize(
    ("noted", "asked", "told"),
    [
        (None, "running", "running"),
        ("succeeded", "unknown", "succeeded"),  # the scheduler has forgotten it
        ("failed", "succeeded", "failed"),  # the script's own code was 0
        ("preempted", "queued", "queued"),  # requeued by the scheduler
        ("preempted", "unknown", "preempted"),
        (None, "lost", "lost"),
    ],
)
def test_who_is_believed(noted: State | None, asked: State, told: State) -> None:
    outcome = Outcome(noted, 0, "", 0.0) if noted else None
    assert combined(outcome, Status(asked)).state == told
