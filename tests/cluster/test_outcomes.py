"""The job's own word and its scheduler's, joined."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster.job_folder import Attempt, JobFolder, Outcome
from cluster.outcomes import close_cut_off, combined, still_missing
from cluster.spec import JobError, State, Status


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


@pytest.mark.parametrize(
    ("noted", "cancelled", "waits"),
    [
        (None, False, True),
        ("preempted", False, True),
        ("succeeded", False, False),
        ("succeeded", True, False),  # it had ended when it was cancelled
        (None, True, "was cancelled"),  # before it began, so that nobody notes its end
        ("preempted", True, "was cancelled"),
        ("cancelled", False, "was cancelled"),
        ("failed", True, "has failed"),
    ],
)
def test_what_is_waited_for(noted: State | None, cancelled: bool, waits: bool | str, tmp_path: Path) -> None:
    place = JobFolder(tmp_path)
    place.job.mkdir()
    if noted:
        place.write_outcome(noted, 0, "")
    if cancelled:
        place.cancelled.touch()
    if isinstance(waits, bool):
        assert still_missing([tmp_path]) == waits
    else:
        with pytest.raises(JobError, match=f"which this one comes after, {waits}"):
            still_missing([tmp_path])


def test_an_attempt_that_was_cut_off_ended_with_its_last_sign_of_life(tmp_path: Path) -> None:
    place = JobFolder(tmp_path)
    place.logs.mkdir(parents=True)
    place.note_attempt(Attempt(1, "t", "h", "", 100.0, 200.0, 9, "failed"))
    assert close_cut_off(place) is None
    place.note_attempt(Attempt(2, "t", "h", "", 300.0))
    place.rank_log(0).touch()
    os.utime(place.rank_log(0), (500.0, 500.0))
    place.rank_log(1).symlink_to("nothing")
    lost = close_cut_off(place)
    assert lost is not None
    assert (lost.number, lost.kind, lost.end_s) == (2, "lost", 500.0)
    assert place.attempts()[1] == lost
