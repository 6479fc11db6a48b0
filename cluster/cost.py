"""What a job has used: the hours that its processes, and the GPUs they held, were taken, over all its attempts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from cluster.job_folder import Attempt, JobFolder


@dataclass(frozen=True)
class Cost:
    """process_hours: wall time times processes; gpu_hours: the same times the GPUs of each, 0 where it has none."""

    process_hours: float
    gpu_hours: float


def cost(attempts: Sequence[Attempt], num_processes: int, gpus_per_process: int, now_s: float) -> Cost:
    """What attempts have used; time between them, and time in a queue, costs nothing.

    An attempt that still runs is counted to ``now_s``. One that nobody saw end (its machine went down) is counted
    to the start of the next, which is the longest that it can have been.

    Args:
        attempts: of one job, oldest first, with Unix times.
        num_processes: that an attempt runs at once.
        gpus_per_process: each of which is held while the process lives.
        now_s: Unix time.
    """
    spent_s = 0.0
    if attempts:
        ends_s = [later.start_s for _, later in pairwise(attempts)] + [now_s]
        for attempt, latest_s in zip(attempts, ends_s, strict=True):
            end_s = latest_s if attempt.end_s is None else attempt.end_s
            spent_s += max(0.0, end_s - attempt.start_s)  # clocks of two machines may differ
    process_hours = spent_s * num_processes / 3600
    return Cost(process_hours, process_hours * gpus_per_process)


def of_job(folder: Path) -> Cost:
    """What the job of a folder has used until now.

    Raises:
        JobError: the folder holds no job, or cannot be read.
    """
    job = JobFolder(folder)
    spec = job.spec()
    return cost(job.attempts(), spec.world, spec.resources.gpus_per_process, time.time())


def metrics(folder: Path) -> dict[str, float]:
    """The same under the names that a run's page shows."""
    used = of_job(folder)
    return {"castbank.process_hours": used.process_hours, "castbank.gpu_hours": used.gpu_hours}
