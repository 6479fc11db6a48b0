"""What a training finds around it: nothing, a launcher, a job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.job_folder import JobFolder
from cluster.spec import JobError, JobSpec, Stopping
from jobs.train_place import TAKE_OVER_S, Surroundings, launched_rank
from pipeline.config import EngineConfig, TrainConfig

CONFIG = TrainConfig(run="runs/first", engine=EngineConfig(num_processes=3, timeout_s=77.0))
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "7"}


def test_alone() -> None:
    around = Surroundings.of({})
    assert (around.world(CONFIG), around.tags(), around.costs(), around.take_over_s) == (3, {}, {}, 0.0)
    care = around.care(CONFIG)
    assert (care.base, care.hang_s, care.stop_files) == (Path("runs/first"), 77.0, ())
    assert care.phases == (
        "train",
        "checkpoint",
    )  # outside of a job nobody has said how long a start may take
    around.fence.check()


def test_launched() -> None:
    around = Surroundings.of(TORCHRUN)
    assert around.world(CONFIG) == 2
    assert around.launched is not None
    rank = launched_rank(around.launched)
    assert (rank.index, rank.world, rank.local, rank.address.host, rank.address.port) == (1, 2, 1, "a", 7)
    assert rank.environment() == TORCHRUN


def test_in_a_job(tmp_path: Path) -> None:
    job = JobFolder(tmp_path)
    job.write_spec(
        JobSpec("first-3f", "first", "ray", ("x",), tmp_path, tmp_path, stopping=Stopping(hang_s=9))
    )
    around = Surroundings.of({"CASTBANK_JOB": str(tmp_path), "CASTBANK_ATTEMPT": "t"})
    assert around.tags() == {"castbank.job": "first-3f", "castbank.place": "ray"}
    job.write_submitted("ray", "raysubmit_1")
    (job.job / "code.json").write_text(json.dumps({"sha256": "abc", "git_commit": "", "dirty": False}))
    more = {"castbank.scheduler_id": "raysubmit_1", "castbank.code_sha256": "abc"}
    assert around.tags() == {"castbank.job": "first-3f", "castbank.place": "ray"} | more
    care = around.care(CONFIG)
    assert (care.base, care.hang_s, care.phases) == (job.job, 9, ())
    assert care.stop_files == (job.stop, job.cancelled)
    assert set(around.costs()) == {"castbank.process_hours", "castbank.gpu_hours"}
    assert (around.training(CONFIG), around.take_over_s) == ("t", TAKE_OVER_S)


def test_a_folder_that_holds_no_job_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="holds no job"):
        Surroundings.of({"CASTBANK_JOB": str(tmp_path)}).care(CONFIG)
