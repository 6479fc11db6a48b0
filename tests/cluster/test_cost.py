"""What a job has used, against sums made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cluster import cost as costs
from cluster.cost import Cost, cost
from cluster.job_folder import Attempt, JobFolder
from cluster.spec import JobError, JobSpec, Resources

HOUR_S = 3600.0


def attempt(number: int, start_h: float, end_h: float | None) -> Attempt:
    end_s = None if end_h is None else end_h * HOUR_S
    return Attempt(number, f"token-{number}", "n1", "7", start_h * HOUR_S, end_s)


def test_no_attempt_costs_nothing() -> None:
    assert cost([], 8, 1, 5.0) == Cost(0.0, 0.0)


def test_waiting_between_attempts_costs_nothing_and_the_running_one_counts_to_now() -> None:
    tried = [attempt(1, 0, 1.5), attempt(2, 10, 12), attempt(3, 20, None)]
    assert cost(tried, 4, 1, 20.5 * HOUR_S) == Cost(16.0, 16.0)  # (1.5 + 2 + 0.5) x 4
    assert cost(tried, 4, 0, 20.5 * HOUR_S) == Cost(16.0, 0.0)
    assert cost(tried, 2, 8, 20.5 * HOUR_S) == Cost(8.0, 64.0)


def test_an_attempt_that_nobody_saw_end_ended_before_the_next_began() -> None:
    assert cost([attempt(1, 0, None), attempt(2, 3, 4)], 1, 1, 100 * HOUR_S) == Cost(4.0, 4.0)


def test_a_clock_that_is_behind_takes_nothing_away() -> None:
    assert cost([attempt(1, 5, 4), attempt(2, 6, 7)], 1, 1, 0.0) == Cost(1.0, 1.0)


def test_a_folder_gives_its_attempts_and_its_size(tmp_path: Path) -> None:
    job = JobFolder(tmp_path)
    size = Resources(nodes=2, processes_per_node=2, gpus_per_process=1)
    spec = JobSpec("id", "name", "local", ("python",), tmp_path, tmp_path, resources=size, ranks=True)
    job.write_spec(spec)
    first = attempt(1, 0, None)
    job.note_attempt(first)
    job.note_attempt(replace(first, end_s=HOUR_S / 2, exit_code=1, kind="failed"))
    assert costs.of_job(tmp_path) == Cost(2.0, 2.0)
    assert costs.metrics(tmp_path) == {"castbank.process_hours": 2.0, "castbank.gpu_hours": 2.0}
    job.write_spec(replace(spec, ranks=False, array=3))
    assert costs.of_job(tmp_path) == Cost(1.5, 1.5)


def test_a_folder_without_a_job_is_said(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="holds no job"):
        costs.of_job(tmp_path)
