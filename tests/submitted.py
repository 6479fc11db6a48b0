"""Submitted jobs in tests: the state that people see, a good end or the logs, and an empty queue."""

from __future__ import annotations

from cluster.job_folder import JobFolder
from cluster.local_queue import own_queue
from cluster.spec import LIVE
from jobs.overview import states_of
from tests.waiting import until


def state(place: JobFolder) -> str:
    """As ``castbank jobs`` shows it."""
    spec = place.spec()
    return states_of({spec.id: spec})[spec.id].state


def succeeded(place: JobFolder, limit_s: float) -> JobFolder:
    """The job, once it has ended well; its logs where it has not."""
    ended = until(lambda: s if (s := state(place)) not in LIVE and s != "preempted" else "", limit_s)
    logs = [place.log, *sorted(place.logs.glob("*"))]
    assert ended == "succeeded", "\n".join(
        f"{log}:\n{log.read_text()[-3000:]}" for log in logs if log.is_file()
    )
    return place


def empty_the_queue() -> None:
    """Cancel what this machine's queue holds, and wait until it has ended."""
    queue = own_queue()
    for entry in queue.entries().values():
        JobFolder(entry.folder).cancelled.touch()
    queue.ensure_runner()
    until(lambda: not queue.entries())
