"""What srun says about its tasks, and what becomes of it."""

from __future__ import annotations

import pytest

from cluster.slurm.step import Tale, TaskEnd, own_id, parse


def test_how_tasks_ended_is_read_from_srun() -> None:
    assert list(parse("srun: error: n1: task 0: Exited with exit code 75\n")) == [TaskEnd("n1", 0, 75)]
    assert list(parse("srun: error: a-1: tasks 0-1,5: Exited with exit code 1\n")) == [
        TaskEnd("a-1", 0, 1),
        TaskEnd("a-1", 1, 1),
        TaskEnd("a-1", 5, 1),
    ]
    assert [end.code for end in parse("srun: error: n2: task 1: Segmentation fault (core dumped)")] == [139]
    assert [end.code for end in parse("srun: error: n2: task 1: Out Of Memory")] == [137]
    assert [end.code for end in parse("srun: error: n2: task 1: something new")] == [1]
    assert list(parse("srun: Job step aborted: Waiting up to 32 seconds for job step to finish.")) == []


@pytest.mark.parametrize(
    ("codes", "stopping", "expected"),
    [
        (["Exited with exit code 75", "Exited with exit code 75"], True, 75),
        (["Exited with exit code 1", "Exited with exit code 75"], False, 1),
        (["Exited with exit code 75", "Killed"], True, 137),
        (["Exited with exit code 1", "Exited with exit code 2", "Killed"], False, 2),
        (["Terminated", "Exited with exit code 75"], True, 75),
        (["User defined signal 1", "User defined signal 1"], True, 143),
        (["Terminated"], False, 143),
    ],
)
def test_the_end_that_tells_most_is_the_job_s(codes: list[str], stopping: bool, expected: int) -> None:
    tale = Tale()
    for rank, how in enumerate(codes):
        tale.take(f"srun: error: n1: task {rank}: {how}\n")
    worst = tale.worst(stopping)
    assert worst is not None
    assert worst.code == expected


def test_tasks_that_slurm_killed_through_srun_did_not_fail() -> None:
    lines = (
        "forcing job termination",
        "error: n1: task 0: Killed",
        "error: n2: task 1: Exited with exit code 75",
    )
    tale = Tale()
    for line in lines:
        tale.take(f"srun: {line}\n")
    worst = tale.worst(stopping=False)
    assert tale.forced
    assert worst is not None
    assert worst.code == 75
    later = Tale()  # our own, after a failure
    for line in ("error: n2: task 1: Exited with exit code 1", *lines[:2]):
        later.take(f"srun: {line}\n")
    assert not later.forced
    worst = later.worst(stopping=False)
    assert worst == TaskEnd("n2", 1, 1)


def test_an_element_is_not_called_by_what_may_mean_the_array() -> None:
    assert own_id({"SLURM_JOB_ID": "5"}) == "5"
    assert own_id({"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2"}) == "5_2"
