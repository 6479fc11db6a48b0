"""Jobs on a real Ray cluster of two nodes: submitted, followed, stopped, and left alone by a node that dies."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from cluster import heartbeats
from cluster.job_folder import JobFolder
from cluster.ray_jobs.launcher import RayLauncher
from cluster.spec import JobError, JobSpec, RayOptions, Resources, Retry, Stopping
from data_prep.running.isolation import Failure, Limits, Task, Workers
from tests.cluster.ray_lab import ENVIRONMENT, RayLab, ray_lab, until

ROOT = Path(__file__).resolve().parents[2]

TRAINING = """
import json, os, pathlib, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # before there are threads: waited for, each step
import torch, torch.distributed as dist
from datetime import timedelta

asked = False
folder, token = pathlib.Path(os.environ["CASTBANK_JOB"]), os.environ["CASTBANK_ATTEMPT"]
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
dist.init_process_group("gloo", timeout=timedelta(seconds=60))
checkpoint = folder / "checkpoint.json"
step = json.loads(checkpoint.read_text())["step"] if checkpoint.exists() else 0
node = os.environ.get("RAY_NODE_ID", "")
print("rank", rank, "of", world, "begins at", step, os.environ["MASTER_ADDR"], flush=True)
while step < int(sys.argv[1]):
    total = torch.tensor([rank + 1.0, float(asked)])
    dist.all_reduce(total)
    assert total[0] == world * (world + 1) / 2
    step += 1
    if rank == 0 and (step % 5 == 0 or total[1]):
        aside = folder / "aside.json"
        aside.write_text(json.dumps({"step": step, "world": world}))
        assert (folder / "job" / "attempt").read_text() == token
        aside.replace(checkpoint)
    with (folder / f"steps-{rank}").open("a") as out:
        out.write(f"{token} {step} {world} {os.getpid()}\\n")
    if total[1]:
        sys.exit(75)
    asked = asked or signal.sigtimedwait([signal.SIGTERM], 0.1) is not None
"""
WORKS = "import os; print('works on', os.environ['COLOUR'], os.environ['RAY_ADDRESS'])"


@pytest.fixture(scope="module")
def lab() -> Iterator[RayLab]:
    with ray_lab() as made:
        made.add_node(2)
        made.wait(2)
        yield made


def job(lab: RayLab, folder: Path, *words: str, **more: object) -> JobSpec:
    """A job of this Python, with its folder written as submit would."""
    given: dict[str, object] = {
        "id": folder.name,
        "name": folder.name,
        "place": "ray",
        "command": (sys.executable, "-u", *words),
        "folder": folder,
        "workdir": folder,
        "code": folder / "job" / "code",
        "environment": {"COLOUR": "a 'red' \"one\"", "GLOO_SOCKET_IFNAME": "lo"},
        "retry": Retry(backoff_s=1.0),
        "stopping": Stopping(grace_s=60),
        "ray": RayOptions(address=lab.address),
    }
    spec = JobSpec(**(given | more))  # type: ignore[arg-type]
    place = JobFolder(folder)
    place.write_spec(spec)
    place.code.mkdir(parents=True)
    shutil.copytree(ROOT / "cluster", place.code / "cluster", ignore=shutil.ignore_patterns("__pycache__"))
    return spec


def training(lab: RayLab, folder: Path, steps: int, **ray: object) -> JobSpec:
    """Two ranks, on two nodes."""
    folder.mkdir()
    (folder / "training.py").write_text(TRAINING, encoding="utf-8")
    options = RayOptions(address=lab.address, placement="STRICT_SPREAD", **ray)  # type: ignore[arg-type]
    return job(
        lab,
        folder,
        str(folder / "training.py"),
        str(steps),
        resources=Resources(nodes=2),
        ranks=True,
        ray=options,
    )


def submit(spec: JobSpec) -> str:
    scheduler_id = RayLauncher().submit(spec, ())
    JobFolder(spec.folder).write_submitted("ray", scheduler_id)
    return scheduler_id


def state(spec: JobSpec, scheduler_id: str) -> str:
    return RayLauncher().states({scheduler_id: spec})[scheduler_id].state


def steps(spec: JobSpec, rank: int) -> list[list[str]]:
    """Token, step, world and pid of every step of a rank."""
    path = spec.folder / f"steps-{rank}"
    return [line.split() for line in path.read_text().splitlines()] if path.is_file() else []


def wait_for_end(spec: JobSpec, scheduler_id: str, limit_s: float = 180.0) -> str:
    until(lambda: state(spec, scheduler_id) not in ("queued", "running"), "the job's end", limit_s)
    return state(spec, scheduler_id)


def test_a_command_runs_and_its_words_are_kept(lab: RayLab, tmp_path: Path) -> None:
    spec = job(lab, tmp_path / "one job's", "-c", WORKS)
    scheduler_id = submit(spec)
    assert wait_for_end(spec, scheduler_id) == "succeeded"
    place = JobFolder(spec.folder)
    outcome = place.outcome()
    assert outcome is not None
    assert outcome.state == "succeeded"
    assert f":{lab.gcs.split(':')[1]}" in place.rank_log(0).read_text()
    assert place.attempts()[0].scheduler_id == scheduler_id
    again = submit(spec)
    assert again == f"{scheduler_id}.2"
    assert wait_for_end(spec, again) == "succeeded"
    with pytest.raises(JobError, match="not known at"):
        RayLauncher().cancel(spec, "castbank-never")
    assert state(spec, "castbank-never") == "unknown"


@pytest.mark.slow
def test_two_ranks_on_two_nodes_stop_after_a_checkpoint_and_go_on(lab: RayLab, tmp_path: Path) -> None:
    spec = training(lab, tmp_path / "training", 10_000)
    scheduler_id = submit(spec)
    until(lambda: len(steps(spec, 0)) > 3 and len(steps(spec, 1)) > 3, "some steps", 180)
    assert state(spec, scheduler_id) == "running"
    place = JobFolder(spec.folder)
    place.cancelled.touch()
    RayLauncher().cancel(spec, scheduler_id)
    assert wait_for_end(spec, scheduler_id) == "cancelled"
    outcome, (attempt,) = place.outcome(), place.attempts()
    assert outcome is not None
    assert (outcome.state, attempt.kind, attempt.exit_code) == ("cancelled", "preempted", 75)
    saved = json.loads((spec.folder / "checkpoint.json").read_text())["step"]
    assert steps(spec, 0)[-1][1] == steps(spec, 1)[-1][1] == str(saved)
    assert "rank 1 of 2 begins at 0" in place.rank_log(1).read_text()

    place.renew()
    spec = replace(spec, command=(*spec.command[:-1], str(saved + 5)))
    place.write_spec(spec)
    assert wait_for_end(spec, submit(spec)) == "succeeded"
    assert f"begins at {saved}" in place.rank_log(0).read_text()
    assert not left_behind(spec)


def left_behind(spec: JobSpec) -> list[int]:
    """Processes of ranks that are still there."""
    pids = {int(words[3]) for rank in (0, 1) for words in steps(spec, rank)}
    return [pid for pid in pids if psutil.pid_exists(pid)]


def driver_of(spec: JobSpec) -> psutil.Process:
    """The process that has placed the ranks."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "cluster.ray_jobs.train" in words and words[-1] == str(spec.folder):
            return process
    raise AssertionError("no driver")


@pytest.mark.slow
def test_ranks_do_not_outlive_their_driver(lab: RayLab, tmp_path: Path) -> None:
    spec = training(lab, tmp_path / "training", 40)
    scheduler_id = submit(spec)
    until(lambda: len(steps(spec, 0)) > 10, "some steps", 180)
    driver_of(spec).kill()
    until(lambda: not left_behind(spec), "the end of every rank", 20)
    assert wait_for_end(spec, scheduler_id) == "succeeded"
    first, second = JobFolder(spec.folder).attempts()
    assert (first.exit_code, second.kind) == (137, "ok")
    tokens = [token for token, *_ in steps(spec, 0)]
    assert tokens == sorted(tokens, key=[first.token, second.token].index)  # never beside one another


@pytest.mark.slow
def test_a_failing_rank_ends_the_attempt_with_its_code(lab: RayLab, tmp_path: Path) -> None:
    code = "import os, signal, sys; sys.exit(2) if os.environ['RANK'] == '1' else signal.pause()"
    spec = job(lab, tmp_path / "bad", "-c", code, resources=Resources(nodes=2), ranks=True)
    assert wait_for_end(spec, submit(spec)) == "failed"
    place = JobFolder(spec.folder)
    assert [attempt.exit_code for attempt in place.attempts()] == [2]
    assert "rank 1 on" in place.log.read_text()


@pytest.mark.slow
def test_a_node_that_dies_costs_one_attempt(lab: RayLab, tmp_path: Path) -> None:
    spec = training(lab, tmp_path / "training", 60, min_processes=1)
    scheduler_id = submit(spec)
    until(lambda: len(steps(spec, 1)) > 20, "some steps", 180)
    lab.nodes[1].kill_raylet()
    lab.num_dead += 1
    assert wait_for_end(spec, scheduler_id, 240) == "succeeded"
    place = JobFolder(spec.folder)
    first, second = place.attempts()
    assert (first.kind, second.kind) == ("failed", "ok")
    assert "is gone with its node" in place.log.read_text()
    worlds = {token: world for token, _, world, _ in steps(spec, 0)}
    assert worlds == {first.token: "2", second.token: "1"}
    assert heartbeats.world(place.job, second.token) == 1  # so that the supervisor misses none of two
    begun = [int(step) for token, step, *_ in steps(spec, 0) if token == second.token]
    assert begun[0] > 20  # from the checkpoint, not from the start
    assert begun[-1] == 60
    until(lambda: not left_behind(spec), "the end of every rank")


def small_work(item: tuple[str, str]) -> str:
    """One of many; each attempt leaves the pid of the raylet that it runs under."""
    name, folder = item
    with (Path(folder) / name).open("a") as out:
        out.write(f"{os.getppid()}\n")
    threading.Event().wait(0.5)
    return name.upper()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill_raylet", "kill"])
def test_a_node_that_dies_costs_a_preparation_nothing(
    lab: RayLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # this file is not importable in a worker
    for name, value in (ENVIRONMENT | {"RAY_ADDRESS": lab.gcs}).items():
        monkeypatch.setenv(name, value)
    lab.wait(len(lab.nodes) - lab.num_dead)  # a dead one is noticed late
    node = lab.add_node(2)
    lab.wait(len(lab.nodes) - lab.num_dead)
    marks, logs = tmp_path / "marks", tmp_path / "logs"
    marks.mkdir()
    logs.mkdir()
    tasks = [Task(f"task-{k}", (f"task-{k}", str(marks))) for k in range(60)]
    results: dict[str, str | Failure] = {}
    raylet, killed = str(node.raylet().pid), False
    with Workers(0) as workers:
        for task, result in workers.run(small_work, tasks, Limits(max_attempts=1, timeout_s=30.0), logs):
            results[task.name] = result
            under = {path.name for path in marks.iterdir() if raylet in path.read_text().split()}
            if not killed and under - set(results):  # now it has work to lose
                getattr(node, how)()
                killed = True
                lab.num_dead += 1
    assert results == {task.name: task.name.upper() for task in tasks}
    attempts = [len((marks / task.name).read_text().split()) for task in tasks]
    assert killed
    assert min(attempts) == 1
    assert max(attempts) == 2 or how == "kill_raylet"  # whose workers may still end their tasks
    assert not list(logs.iterdir())


def test_an_unreachable_server_is_named(tmp_path: Path) -> None:
    spec = JobSpec(
        "x", "x", "ray", (sys.executable,), tmp_path, tmp_path, ray=RayOptions("http://127.0.0.1:9")
    )
    with pytest.raises(JobError, match=r"127\.0\.0\.1:9 does not answer.*is the cluster up"):
        RayLauncher().submit(spec, ())


def test_more_than_a_node_has_is_refused(lab: RayLab, tmp_path: Path) -> None:
    spec = job(lab, tmp_path / "big", "-c", "", resources=Resources(gpus_per_process=8), ranks=True)
    with pytest.raises(JobError, match=r"resources\.gpus_per_process: 8 asked for, but no node"):
        RayLauncher().submit(spec, ())
    parts = job(lab, tmp_path / "parts", "", resources=Resources(gpus_per_process=1), array=64)
    with pytest.raises(
        JobError, match=r"resources\.cpus_per_process: 64 asked for by all parts, but no node"
    ):
        RayLauncher().submit(parts, ())  # they run on one node, and would wait for ever
