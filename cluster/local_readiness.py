"""What keeps a job in this machine's queue from being started: an end, a folder that is not there, others, a pause.

A start that comes to nothing, as where the job's interpreter was deleted, is followed by a pause that doubles, and
the job has failed after a few of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cluster.job_folder import JobFolder
from cluster.local_entries import Entry, save
from cluster.outcomes import still_missing
from cluster.spec import JobError

MAX_STARTS = 5  # in a row that came to nothing, after which the job has failed
FIRST_WAIT_S, MAX_WAIT_S = 1.0, 60.0  # before the next start after one that came to nothing; doubles
LIVED_S = 600.0  # a supervisor that ended after so long is no hot loop, whatever ended it
GONE_S = 3600.0  # a folder that is missing for so long was deleted, and is no mount that comes late


def settled(path: Path, entry: Entry) -> Entry | None:
    """An entry without a process, as it may be started; None where it waits for something else, or has ended."""
    place = JobFolder(entry.folder)
    if not place.job.is_dir():
        _note_missing(path, entry)
        return None
    if entry.missing_s:
        entry = save(path, replace(entry, missing_s=0.0))
    if entry.awaits is not None:  # what an earlier job in this folder came to is not how this one ended
        if entry.replaces != entry.id:
            place.forget_outcome()
        entry = save(path, replace(entry, awaits=None, gpus=()))
    if entry.supervisor is not None:
        entry = save(path, _reviewed(place, entry))
    if _over(place, entry):
        path.unlink()
        return None
    wait_s = entry.not_before_s - time.time()
    if 0 < wait_s <= MAX_WAIT_S or awaited(entry.after):  # longer: the clock was set back
        return None
    return entry


def _note_missing(path: Path, entry: Entry) -> None:
    """Give up an entry whose folder was deleted; mounts that come late after a reboot are waited for."""
    since_s = (entry.missing_s or time.time()) if entry.folder.parent.is_dir() else 0.0
    if since_s and time.time() - since_s > GONE_S:
        path.unlink()
    elif since_s != entry.missing_s:
        save(path, replace(entry, missing_s=since_s))


def _reviewed(place: JobFolder, entry: Entry) -> Entry:
    """An entry whose supervisor has ended: what came of the start, and when there may be another."""
    outcome, ended = place.outcome(), [a for a in place.attempts() if a.end_s is not None]
    if outcome is not None:  # stopped; by itself and without having come further it would be so again at once
        further = len(ended) < 2 or ended[-1].step > ended[-2].step
        vain = bool(ended) and ended[-1].stopped_s is None and not further
    else:
        vain = num_ended(place) <= entry.num_ended and time.time() - entry.started_s < LIVED_S
    if not vain:
        return replace(entry, supervisor=None, gpus=(), starts=0, not_before_s=0.0)
    if outcome is None and entry.starts >= MAX_STARTS:
        reason = f"its supervisor ended {entry.starts} times without a word; see job/log.txt"
        place.write_outcome("failed", 1, reason)
    wait_s = min(MAX_WAIT_S, FIRST_WAIT_S * 2 ** min(entry.starts - 1, 10))
    return replace(entry, supervisor=None, gpus=(), not_before_s=time.time() + wait_s)


def num_ended(place: JobFolder) -> int:
    """Attempts whose end was seen; those that were cut off come to nothing each time anew."""
    return sum(attempt.end_s is not None and attempt.kind != "lost" for attempt in place.attempts())


def _over(place: JobFolder, entry: Entry) -> bool:
    """Whether a job without a supervisor has ended; one that its owner no longer wants ends here."""
    outcome = place.outcome()
    if outcome is not None and outcome.state != "preempted":
        return True
    if place.cancelled.exists():
        place.write_outcome("cancelled", 0, "cancelled while it waited")
        return True
    return False


def awaited(after: Sequence[Path]) -> Path | None:
    """The first job that has to succeed before; None where none is waited for, or waiting is vain."""
    try:
        if not still_missing(after):
            return None
    except JobError:  # the job is started nevertheless, so that its supervisor notes why it has failed
        return None
    outcomes = {folder: JobFolder(folder).outcome() for folder in after}
    return next(
        (f for f, outcome in outcomes.items() if outcome is None or outcome.state != "succeeded"), None
    )
