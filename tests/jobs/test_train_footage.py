"""Training on shards of real footage: killed with SIGKILL and continued, it equals the one that was left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.training.run_folder import read_metrics
from pipeline.training.trainer import MEASURED
from tests.waiting import until

NUM_STEPS, KILLED_AFTER = 12, 7


def train(shards: Path, run: Path) -> subprocess.Popen[bytes]:
    """castbank train with two ranks, the tiny family at its full size."""
    command = [sys.executable, "-m", "jobs", "train", f"run={run}", f"data.shards={shards}"]
    command += [
        f"data.features={run.parent / 'features'}",
        f"num_steps={NUM_STEPS}",
        "engine.num_processes=2",
    ]
    command += ["checkpoints.every_steps=3", "tracking.num_samples=0", "tracking.flush_s=0.2"]
    return subprocess.Popen([*command, "tracking.max_wait_s=300"])


def differences(a: Path, b: Path) -> dict[str, float]:
    """Largest difference of each scalar over all steps of two runs, which must name the same steps and scalars."""
    lines = [read_metrics(run / "metrics.jsonl") for run in (a, b)]
    assert [[line["step"] for line in some] for some in lines] == [list(range(1, NUM_STEPS + 1))] * 2
    largest: dict[str, float] = {}
    for one, other in zip(*lines, strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - set(MEASURED):
            largest[name] = max(largest.get(name, 0.0), abs(one[name] - other[name]))
    return largest


def kill_and_continue(shards: Path, run: Path) -> tuple[str, str]:
    """Returns the run's MLflow id as it was noted before the kill and after the end."""
    process = train(shards, run)
    known, metrics = run / "mlflow_run_id", run / "metrics.jsonl"

    def far_enough() -> bool:
        assert process.poll() is None, "ended before it could be killed"
        return len(read_metrics(metrics)) >= KILLED_AFTER and known.is_file()

    until(far_enough, 600)
    process.kill()
    process.wait()
    assert len(read_metrics(metrics)) < NUM_STEPS
    before = known.read_text()
    assert train(shards, run).wait() == 0
    return before, known.read_text()


@pytest.mark.slow
def test_killed_and_continued_it_equals_the_one_left_alone(shards: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(shards, whole).wait() == 0
    before, after = kill_and_continue(shards, killed)
    assert set(differences(whole, killed).values()) == {0.0}
    assert before == after
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    history = client.get_metric_history(after, "loss")
    assert sorted(point.step for point in history) == list(range(1, NUM_STEPS + 1))
    assert client.get_run(after).info.status == "FINISHED"
    name = "transformer/diffusion_pytorch_model.safetensors"
    assert (whole / "export" / name).read_bytes() == (killed / "export" / name).read_bytes()
