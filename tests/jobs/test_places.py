"""One job file in three real places: this machine, a Slurm of two nodes, a Ray of two nodes.

The training is the real one on small shards; what is compared is every scalar of every step, and bytes of shards.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import heartbeats
from cluster.job_folder import JobFolder
from jobs.__main__ import main
from pipeline.training.run_folder import read_metrics
from pipeline.training.trainer import MEASURED
from tests.cluster.ray_lab import RayLab, ray_lab
from tests.cluster.slurm_lab.lab import Lab
from tests.small_shards import make_shards
from tests.submitted import empty_the_queue, state, succeeded
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
NUM_STEPS = 24
CONFIG = f"""
num_steps: {NUM_STEPS}
batch_size: 4
model:
  family:
    tiny: {{num_layers: 4, num_heads: 4, head_dim: 32, ffn_dim: 256, text_tokens: 8, text_dim: 16}}
  identity: {{tokens_per_character: 2, width: 16, encoder_layers: 1, num_heads: 2}}
data: {{num_frames: 3, frame_stride: 2}}
checkpoints: {{every_steps: 4}}
tracking: {{flush_s: 0.5, num_samples: 1}}
"""
LIMIT_S = 400.0


class Workplace:
    """A folder with shards, a job file and everything that is submitted from it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        make_shards(root / "shards")
        (root / "small.yaml").write_text(CONFIG)
        job = {
            "name": "first",
            "folder": str(root / "runs" / "first"),
            "workdir": str(root),
            "command": ["train", "--config", "small.yaml", "data.shards=shards"],
            "resources": {"nodes": 2},
            "stopping": {"grace_s": 60, "hang_s": 300},
            "ray": {"placement": "STRICT_SPREAD"},
        }
        (root / "job.yaml").write_text(json.dumps(job))

    def submit(self, place: str, name: str, *overrides: str) -> JobFolder:
        folder = self.root / "runs" / name
        words = ["submit", str(self.root / "job.yaml"), "--on", place, f"name={name}", f"folder={folder}"]
        assert main([*words, *overrides]) == 0
        return JobFolder(folder)

    def curve(self, name: str) -> list[dict[str, float]]:
        lines = read_metrics(self.root / "runs" / name / "metrics.jsonl")
        return [{key: value for key, value in line.items() if key not in MEASURED} for line in lines]

    def steps(self, name: str) -> int:
        return len(read_metrics(self.root / "runs" / name / "metrics.jsonl"))


def largest_difference(a: list[dict[str, float]], b: list[dict[str, float]]) -> float:
    assert [line["step"] for line in a] == [line["step"] for line in b] == list(range(1, NUM_STEPS + 1))
    return max(abs(x[key] - y[key]) for x, y in zip(a, b, strict=True) for key in x)


@pytest.fixture(scope="module")
def place(face_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    root = tmp_path_factory.mktemp("places")
    home = root / "home"
    home.mkdir()
    (home / "models").symlink_to(face_home / "models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CASTBANK_HOME", str(home))
        yield Workplace(root)
        empty_the_queue()


@pytest.fixture(scope="module")
def ray() -> Iterator[RayLab]:
    with ray_lab(head_cpus=2) as lab, pytest.MonkeyPatch.context() as patch:
        lab.add_node(2)
        lab.wait(2)
        patch.setenv("RAY_ADDRESS", lab.address)
        yield lab


@pytest.fixture(scope="module")
def whole(place: Workplace) -> Workplace:
    """With the undisturbed training on this machine."""
    succeeded(place.submit("local", "local"), LIMIT_S)
    return place


def alike(place: JobFolder) -> set[str]:
    """What a run's folder holds, sample videos and logs apart."""
    return {str(path.relative_to(place.folder)) for path in [*place.folder.glob("*"), *place.logs.glob("*")]}


def test_the_same_training_on_slurm(whole: Workplace, slurm: Lab) -> None:
    job = succeeded(whole.submit("slurm", "slurm"), LIMIT_S)
    difference = largest_difference(whole.curve("local"), whole.curve("slurm"))
    print(f"\nlocal against Slurm, 2 nodes x 1: largest difference of any scalar {difference:g}")
    assert difference == 0
    assert alike(job) == alike(JobFolder(whole.root / "runs" / "local"))


def test_the_same_training_on_ray(whole: Workplace, ray: RayLab) -> None:
    job = succeeded(whole.submit("ray", "ray"), LIMIT_S)
    difference = largest_difference(whole.curve("local"), whole.curve("ray"))
    print(f"\nlocal against Ray, 2 nodes x 1: largest difference of any scalar {difference:g}")
    assert difference == 0
    assert alike(job) == alike(JobFolder(whole.root / "runs" / "local"))


def test_all_are_one_mlflow_experiment(whole: Workplace) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{whole.root / 'runs' / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "castbank"]
    runs = client.search_runs([experiment.experiment_id])
    done = [name for name in ("local", "slurm", "ray") if (whole.root / "runs" / name / "export").is_dir()]
    found = {run.data.tags["castbank.place"]: run for run in runs}
    assert set(done) <= set(found)
    for name in done:
        history = client.get_metric_history(found[name].info.run_id, "loss")
        assert [point.step for point in history] == list(range(1, NUM_STEPS + 1))
        assert found[name].data.tags["castbank.code_sha256"]


@pytest.mark.parametrize("how", ["scancel-step", "scancel-batch", "requeue", "slurmd", "time-limit"])
def test_slurm_training_goes_on_exactly(how: str, whole: Workplace, slurm: Lab) -> None:
    """Signals, a requeue by hand, a time limit and the death of a node's slurmd, each in the middle."""
    limits = ("resources.time_limit_min=2", "stopping.grace_s=60") if how == "time-limit" else ()
    job = whole.submit("slurm", how, *limits)
    until(lambda: whole.steps(how) >= 6, LIMIT_S)
    submitted = job.submitted()
    assert submitted is not None
    reached = whole.steps(how)
    if how == "slurmd":
        cut_off = heartbeats.read(job.heartbeats)[1].pid
        os.kill(cut_off, signal.SIGSTOP)  # as on a node that is cut off: neither heard of nor dead
        slurm.kill_node("n2")  # Slurm misses it and puts the job back
        until(
            lambda: slurm.ask("squeue", "-h", "-j", submitted.scheduler_id, "-o", "%T") == "PENDING", LIMIT_S
        )
        with contextlib.suppress(ProcessLookupError):
            os.kill(cut_off, signal.SIGCONT)  # it wakes beside the new attempt
        slurm.start_node("n2")
    elif how == "time-limit":
        frozen = [beat.pid for beat in heartbeats.read(job.heartbeats)]
        for pid in frozen:  # they would be done before Slurm says that time is running out
            os.kill(pid, signal.SIGSTOP)
        until(lambda: slurm.ask("squeue", "-h", "-j", submitted.scheduler_id, "-o", "%M") >= "1:05", LIMIT_S)
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    else:
        words = {
            "scancel-step": ["scancel", "--signal=USR1", submitted.scheduler_id],
            "scancel-batch": ["scancel", "--signal=USR1", "--batch", submitted.scheduler_id],
            "requeue": ["scontrol", "requeue", submitted.scheduler_id],
        }[how]
        subprocess.run(words, check=True)
    succeeded(job, LIMIT_S)
    attempts = job.attempts()
    difference = largest_difference(whole.curve("local"), whole.curve(how))
    lost = reached - (attempts[0].step if attempts[0].kind == "preempted" else reached // 4 * 4)
    told = [(attempt.kind, attempt.step) for attempt in attempts]
    print(f"\n{how}: attempts {told}, {max(lost, 0)} steps done again, largest difference {difference:g}")
    assert len(attempts) >= 2
    assert difference == 0


def test_ray_training_survives_a_node(whole: Workplace, ray: RayLab) -> None:
    job = whole.submit("ray", "ray-node")
    until(lambda: whole.steps("ray-node") >= 6, LIMIT_S)
    ray.nodes[1].kill_raylet()
    ray.add_node(2)
    succeeded(job, LIMIT_S)
    difference = largest_difference(whole.curve("local"), whole.curve("ray-node"))
    told = [(attempt.kind, attempt.step) for attempt in job.attempts()]
    print(f"\nraylet killed: attempts {told}, largest difference {difference:g}")
    assert len(told) >= 2
    assert difference == 0


def test_cancel_and_requeue_go_on_in_every_place(whole: Workplace, slurm: Lab, ray: RayLab) -> None:
    for name in ("local", "slurm", "ray"):
        label = f"{name}-cancel"
        job = whole.submit(name, label)
        until(lambda label=label: whole.steps(label) >= 6, LIMIT_S)  # type: ignore[misc]
        assert main(["cancel", label]) == 0
        until(lambda job=job: state(job) == "cancelled", LIMIT_S)  # type: ignore[misc]
        assert main(["requeue", label]) == 0
        succeeded(job, LIMIT_S)
        assert largest_difference(whole.curve("local"), whole.curve(label)) == 0
        print(f"\n{label}: {job.attempts()[0].stopped_s:.1f} s from the request to the end of all processes")
