"""Slurm without Slurm: what travels, what an attempt consists of, and that it is not installed."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.job_folder import Attempt
from cluster.slurm.launcher import SlurmLauncher, children, mounts, submitter_environment
from cluster.spec import JobError, SlurmOptions
from tests.cluster.slurm_lab.specs import CONTAINER, MINIMAL, TRAINING


def test_no_secret_travels_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "value-of-token")
    monkeypatch.setenv("OTHER_TOKEN", "value-of-other")
    monkeypatch.setenv("SBATCH_EXPORT", "ALL")
    monkeypatch.setenv("SBATCH_PARTITION", "mine")
    text = SlurmLauncher().render(TRAINING)
    (export,) = [line for line in text.splitlines() if line.startswith("#SBATCH --export=")]
    assert "MY_TOKEN" in export
    assert "OTHER" not in text
    assert "value-of" not in text
    travels = submitter_environment(TRAINING)
    assert travels["MY_TOKEN"] == "value-of-token"
    assert not {"OTHER_TOKEN", "SBATCH_EXPORT", "SBATCH_PARTITION"} & travels.keys()
    assert submitter_environment(MINIMAL)["SBATCH_PARTITION"] == "mine"
    monkeypatch.delenv("MY_TOKEN")
    with pytest.raises(JobError, match=r"secrets\.MLFLOW_TRACKING_TOKEN: MY_TOKEN is not set where"):
        submitter_environment(TRAINING)


def test_an_attempt_is_one_srun_and_a_container_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no scontrol there: the host's name is the address
    attempt = Attempt(1, "token", "host", "7", 0.0)
    (child,) = children(replace(TRAINING, folder=tmp_path / "50%"), attempt)
    words = shlex.join(child.command)
    assert (
        "cluster.slurm.step srun --job-name=castbank --nodes=2 --ntasks=8 --ntasks-per-node=4 --cpus-per-task=8"
        in words
    )
    assert f"--output={tmp_path}/50%%/job/logs/rank-%t.log" in words
    assert words.endswith(shlex.join(TRAINING.command))
    assert set(child.environment) == {"MASTER_ADDR", "MASTER_PORT"}
    (child,) = children(replace(CONTAINER, folder=tmp_path), attempt)
    assert f"--container-image={CONTAINER.image}" in child.command
    assert (
        f"--container-mounts=/data:/data,/scratch:/tmp/cache:ro,/home/ada:/home/ada,{tmp_path}:{tmp_path}"
        in child.command
    )
    assert "--container-env=LEVEL,PYTHONPATH,PYTHONSAFEPATH,PYTHONUNBUFFERED" in child.command
    assert child.command[-len(MINIMAL.command) :] == ("/usr/bin/python3", *MINIMAL.command[1:])
    (child,) = children(
        replace(CONTAINER, folder=tmp_path, ranks=False, slurm=SlurmOptions(container="apptainer")), attempt
    )
    inside = child.command[child.command.index("apptainer") :]
    assert inside[:5] == ("apptainer", "exec", "--nv", "--bind", "/data:/data")
    assert inside[-10:] == ("--pwd", "/home/ada", CONTAINER.image, "python3", *MINIMAL.command[1:])
    assert child.environment == {}


def test_what_is_mounted_already_is_not_mounted_twice() -> None:
    spec = replace(MINIMAL, mounts=("/data:/data",), code=Path("/data/runs/first/job/code"))
    assert mounts(spec) == ["/data:/data", "/home/ada:/home/ada"]


def test_slurm_that_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    spec = replace(MINIMAL, folder=tmp_path)
    with pytest.raises(
        JobError, match="sbatch is not installed here, or not on PATH; submit from a login node"
    ):
        SlurmLauncher().submit(spec, [])
    with pytest.raises(JobError, match="squeue is not installed here"):
        SlurmLauncher().states({"1": spec})
