"""castbank train where a launcher has started the ranks: the same end as with our own, also when it goes wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster import heartbeats
from cluster.job_folder import ENV_FOLDER, ENV_TOKEN, JobFolder
from cluster.spec import JobSpec
from tests.small_training import NUM_STEPS, Workplace, start, wait_until

Variables = Callable[[int, int, int], dict[str, str]]


def explicit(index: int, world: int, port: int) -> dict[str, str]:
    ranks = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": world, "MASTER_PORT": port}
    return {name: str(value) for name, value in ranks.items()} | {"MASTER_ADDR": "127.0.0.1"}


def of_slurm(index: int, world: int, port: int) -> dict[str, str]:
    """What srun sets, and nothing else; the port is derived from the job's id."""
    numbers = {"PROCID": index, "LOCALID": index, "NTASKS": world, "STEP_NUM_TASKS": world, "STEP_ID": 0}
    return {f"SLURM_{name}": str(value) for name, value in numbers.items()} | {
        "SLURM_JOB_ID": str(port),
        "SLURM_JOB_NODELIST": "localhost,other",
        "SLURM_STEP_NODELIST": "localhost",
    }


class Ranks:
    """Processes of one launched training."""

    def __init__(
        self, place: Workplace, run: str, overrides: Sequence[str] = (), variables: Variables = explicit
    ) -> None:
        self._place, self._run, self._overrides, self._variables = place, run, overrides, variables
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self.processes: list[Any] = []

    def start(self, indices: Sequence[int] = (0, 1), world: int = 2, **more: str) -> Ranks:
        arguments = self._place.arguments(self._run, "tracking.kind=none", *self._overrides)
        for index in indices:
            variables = self._variables(index, world, self._port) | more
            self.processes.append(start(arguments, variables, self.log(index)))
        return self

    def log(self, index: int) -> Path:
        return self._place.root / f"{self._run}-{index}.log"

    def codes(self) -> list[int]:
        for process in self.processes:
            process.join(300)
        return [process.exitcode for process in self.processes]

    def lines(self, index: int) -> list[str]:
        """What a rank says to its user."""
        return [line for line in self.log(index).read_text().splitlines() if "castbank" in line]


@pytest.mark.parametrize("variables", [explicit, pytest.param(of_slurm, marks=pytest.mark.slow)])
def test_two_launched_ranks_learn_what_two_forked_ones_do(variables: Variables, place: Workplace) -> None:
    run = f"by-{variables.__name__}"
    ranks = Ranks(place, run, variables=variables).start()
    assert ranks.codes() == [0, 0]
    assert place.curve(run) == place.curve("whole")
    assert (place.folder(run) / "export" / "identity.safetensors").is_file()
    assert f"trained {NUM_STEPS} steps" in ranks.log(0).read_text()
    beats = heartbeats.read(place.folder(run) / "heartbeats")
    assert [(beat.rank, beat.phase, beat.step) for beat in beats] == [
        (0, "done", NUM_STEPS),
        (1, "done", NUM_STEPS),
    ]

    again = Ranks(place, run, variables=variables).start()
    assert again.codes() == [0, 0]
    assert "nothing to do" in ranks.log(0).read_text()


def test_a_rank_that_does_not_come_is_named(place: Workplace) -> None:
    ranks = Ranks(place, "missing", ["engine.join_timeout_s=3"]).start([0, 2], 4)
    assert ranks.codes() == [1, 1]
    for index in (0, 2):
        (line,) = ranks.lines(index)
        assert line.startswith("castbank train: rank(s) 1, 3 of 4 did not join within 3 s at 127.0.0.1:")
        assert "Traceback" not in ranks.log(index).read_text()


def test_without_the_first_rank_nobody_waits_for_ever(place: Workplace) -> None:
    ranks = Ranks(place, "headless", ["engine.join_timeout_s=1"]).start([1])
    assert ranks.codes() == [1]
    assert "rank 1 of 2: rank 0 was not found within 1 s: 127.0.0.1 port" in ranks.lines(1)[0]


def test_what_is_wrong_is_the_same_line_on_every_rank(place: Workplace) -> None:
    ranks = Ranks(place, "whole", ["seed=1"]).start()
    assert ranks.codes() == [2, 2]
    assert ranks.lines(0) == ranks.lines(1)
    assert "seed (was 0, is 1)" in ranks.lines(0)[0]


def test_launchers_that_contradict_each_other_are_refused(place: Workplace) -> None:
    ranks = Ranks(place, "twice").start([1], SLURM_PROCID="0", SLURM_STEP_NUM_TASKS="2", SLURM_LOCALID="0")
    assert ranks.codes() == [2]
    assert "castbank train: environment: RANK=1 and SLURM_PROCID=0 disagree" in ranks.lines(1)[0]


def seen(place: Workplace, run: str, step: int) -> Callable[[], bool]:
    return lambda: len(place.curve(run)) >= step


@pytest.mark.slow
def test_stopped_by_one_rank_and_started_again_it_ends_the_same(place: Workplace) -> None:
    ranks = Ranks(place, "stopped").start()
    wait_until(seen(place, "stopped", 5), ranks.processes[0])
    os.kill(ranks.processes[1].pid, signal.SIGUSR1)  # the request reaches all
    assert ranks.codes() == [75, 75]
    said = re.search(
        r"stopped at step (\d+), checkpoint committed \d+\.\d s after the request", ranks.log(0).read_text()
    )
    assert said is not None
    assert int(said[1]) == len(place.curve("stopped"))
    assert Ranks(place, "stopped").start().codes() == [0, 0]
    assert place.curve("stopped") == place.curve("whole")


def job_of(place: Workplace, run: str) -> JobFolder:
    """The run's folder as that of a job, as its submitter and its supervisor leave it."""
    job = JobFolder(place.folder(run))
    job.write_spec(JobSpec("small-1", "small", "slurm", ("castbank",), job.folder, job.folder))
    job.write_submitted("slurm", "4711")
    (job.job / "code.json").write_text(json.dumps({"sha256": "abc", "git_commit": "", "dirty": False}))
    return job


@pytest.mark.slow
def test_a_newer_attempt_takes_over_and_the_older_one_writes_nothing_more(place: Workplace) -> None:
    job = job_of(place, "fenced")
    more = {ENV_FOLDER: str(job.folder)}
    job.claim("older")
    older = Ranks(place, "fenced").start(**more, **{ENV_TOKEN: "older"})
    wait_until(seen(place, "fenced", 5), older.processes[0])
    job.claim("newer")
    newer = Ranks(place, "fenced").start(**more, **{ENV_TOKEN: "newer"})
    assert older.codes() == [1, 1]
    assert newer.codes() == [0, 0]
    assert "attempt older of job" in newer.log(0).read_text()
    assert place.curve("fenced") == place.curve("whole")
    assert {beat.token for beat in heartbeats.read(job.heartbeats)} == {"newer"}
    assert job.spec().id == "small-1"  # the run was started anew beside it


@pytest.mark.slow
def test_the_jobs_stop_file_is_a_request_too(place: Workplace) -> None:
    job = job_of(place, "asked")
    ranks = Ranks(place, "asked").start(**{ENV_FOLDER: str(job.folder)})
    wait_until(seen(place, "asked", 3), ranks.processes[0])
    job.stop.touch()
    assert ranks.codes() in ([75, 75], [0, 0])
    assert ranks.codes() == [75, 75] or len(place.curve("asked")) == NUM_STEPS
