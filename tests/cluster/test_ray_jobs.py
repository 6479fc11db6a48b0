"""What Ray's job server is told of a job, how its answers are read, and how ranks are placed: without a cluster."""

from __future__ import annotations

import random
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.job_submission import JobDetails, JobStatus, JobType

from cluster.job_folder import Attempt
from cluster.ray_jobs import launcher as ray_launcher
from cluster.ray_jobs.launcher import RayLauncher, address_of, children, request
from cluster.ray_jobs.rank import GONE, Board, End, Report, environment, verdict
from cluster.ray_jobs.train import num_workers, worker_resources
from cluster.spec import JobError, JobSpec, RayOptions, Resources, Stopping

PIECES = [
    "a",
    " ",
    "'",
    '"',
    "\\",
    "\n",
    "\t",
    ";",
    "&",
    "|",
    "`",
    "#",
    "{",
    "}",
    ":",
    "- ",
    "é",
    "漢",
    "🙂",
    "\x7f",
    "*",
]
ATTEMPT = Attempt(1, "token", "host", "", 0.0)


def spec(**more: Any) -> JobSpec:
    given: dict[str, Any] = {
        "id": "train-0a1b",
        "name": "train",
        "place": "ray",
        "command": ("/venv/bin/python", "-P", "-m", "jobs", "train"),
        "folder": Path("/shared/run"),
        "workdir": Path("/shared"),
        "code": Path("/shared/run/job/code"),
    }
    return JobSpec(**(given | more))


def hostile(rng: random.Random) -> str:
    return "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 12)))


@pytest.mark.parametrize("seed", range(100))
def test_hostile_words_survive_yaml_and_shell(seed: int) -> None:
    rng = random.Random(seed)
    made = spec(
        id=hostile(rng),
        name=hostile(rng),
        command=("/" + hostile(rng), *(hostile(rng) for _ in range(3))),
        folder=Path("/" + hostile(rng)),
        code=Path("/" + hostile(rng)),
        environment={f"V{k}": hostile(rng) for k in range(3)},
        ranks=rng.random() < 0.5,
    )
    asked = yaml.safe_load(RayLauncher().render(made))
    assert asked == request(made)
    words = shlex.split(asked["entrypoint"])
    assert words == [made.command[0], "-P", "-m", "cluster.supervisor", str(made.folder)]
    assert asked["metadata"] == {"castbank_id": made.id, "name": made.name, "folder": str(made.folder)}
    variables = asked["runtime_env"]["env_vars"]
    assert variables["PYTHONPATH"] == str(made.code)
    assert made.ranks or variables.items() >= made.environment.items()
    assert set(asked["submission_id"]) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"
    )


def test_a_driver_reserves_nothing_and_is_given_its_grace() -> None:
    made = spec(ranks=True, resources=Resources(2, 8, 4, 1), stopping=Stopping(grace_s=300))
    asked = request(made)
    assert asked["entrypoint_num_cpus"] == 0
    assert "entrypoint_num_gpus" not in asked
    assert asked["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "330"
    assert worker_resources(made) == {"CPU": 4, "GPU": 1}
    alone = request(replace(made, ranks=False, resources=Resources(cpus_per_process=4, gpus_per_process=1)))
    assert (alone["entrypoint_num_cpus"], alone["entrypoint_num_gpus"]) == (4, 1)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"secrets": {"TOKEN": "env:TOKEN"}},
            r"secrets\.TOKEN: env:… cannot be resolved on ray; allowed are file:",
        ),
        ({"environment": {"A": "$HOME/x"}}, r"environment\.A: .*'\$', which Ray replaces"),
        ({"code": Path("/a$b")}, r"environment\.PYTHONPATH"),
    ],
)
def test_what_cannot_be_said_to_ray_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        RayLauncher().render(spec(**more))


def test_the_address_is_the_jobs_then_the_environments_then_rays_own() -> None:
    given = spec(ray=RayOptions(address="https://head:8265"))
    assert address_of(given, {"RAY_ADDRESS": "http://other:1"}) == "https://head:8265"
    assert address_of(spec(), {"RAY_ADDRESS": "http://other:1"}) == "http://other:1"
    assert address_of(spec(), {}) == "http://127.0.0.1:8265"
    for wrong in ("ray://head:10001", "head:6379", "auto", "http://"):
        with pytest.raises(JobError, match=r"ray\.address: .*begins with http:// or https://"):
            address_of(spec(ray=RayOptions(address=wrong)), {})
    with pytest.raises(JobError, match="environment: RAY_ADDRESS: 'head:6379' came"):
        address_of(spec(), {"RAY_ADDRESS": "head:6379"})


def test_the_processes_of_an_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    (alone,) = children(spec(), ATTEMPT)
    assert (alone.command, alone.environment) == (spec().command, {"RAY_ADDRESS": "head:6379"})
    (driver,) = children(spec(ranks=True, resources=Resources(nodes=4)), ATTEMPT)
    assert driver.command == ("/venv/bin/python", "-P", "-m", "cluster.ray_jobs.train", "/shared/run")
    parts = children(spec(array=3, command=("python", "{part}")), ATTEMPT)
    assert [part.command for part in parts] == [("python", f"{k}/3") for k in (1, 2, 3)]
    assert len({part.log for part in parts}) == 3


@pytest.mark.parametrize(
    ("status", "more", "state"),
    [
        (JobStatus.PENDING, {}, "queued"),
        (JobStatus.RUNNING, {}, "running"),
        (JobStatus.SUCCEEDED, {}, "succeeded"),
        (JobStatus.STOPPED, {}, "cancelled"),
        (JobStatus.FAILED, {"driver_exit_code": 1}, "failed"),
        (JobStatus.FAILED, {"driver_exit_code": 75}, "preempted"),
        (JobStatus.FAILED, {"error_type": "JOB_SUPERVISOR_ACTOR_DIED"}, "lost"),
    ],
)
def test_rays_words_for_a_job(status: JobStatus, more: dict[str, Any], state: str) -> None:
    details = JobDetails(type=JobType.SUBMISSION, submission_id="x", status=status, entrypoint="x", **more)
    assert ray_launcher._status(details).state == state


def test_a_job_that_goes_on_is_a_new_submission() -> None:
    assert ray_launcher._free_id("castbank-x", {"castbank-y", None}) == "castbank-x"
    assert ray_launcher._free_id("castbank-x", {"castbank-x", "castbank-x.2"}) == "castbank-x.3"


def test_an_autoscaler_is_known_by_its_node_types() -> None:
    def answer(types: dict[str, str]) -> dict[str, Any]:
        return {"data": {"clusterStatus": {"autoscalerReport": {"nodeTypeMapping": types}}}}

    assert not ray_launcher._autoscales(answer({"1f": "node_1f"}))
    assert ray_launcher._autoscales(answer({"1f": "headgroup"}))
    assert not ray_launcher._autoscales({"data": {"clusterStatus": None}})


@pytest.mark.parametrize(
    ("placement", "least", "nodes", "count"),
    [
        ("PACK", 0, [], 4),  # not elastic: all or nothing
        ("PACK", 2, [{"CPU": 2.0}], 2),
        ("PACK", 2, [{"CPU": 9.0}, {"CPU": 9.0}], 4),
        ("PACK", 3, [{"CPU": 2.0}], 4),  # too few: it waits for all
        ("SPREAD", 1, [{"CPU": 2.0}, {"CPU": 1.0}], 3),
        ("STRICT_SPREAD", 1, [{"CPU": 9.0}, {"CPU": 1.0}, {"GPU": 1.0}], 2),
        ("STRICT_PACK", 1, [{"CPU": 3.0}, {"CPU": 2.0}], 3),
    ],
)
def test_how_many_workers_are_asked_for(
    placement: Any, least: int, nodes: list[dict[str, float]], count: int
) -> None:
    options = RayOptions(placement=placement, min_processes=least)
    assert num_workers(spec(ranks=True, resources=Resources(nodes=4), ray=options), nodes) == count


def test_more_than_all_ranks_cannot_be_the_least() -> None:
    with pytest.raises(
        JobError, match=r"ray\.min_processes: 5 came, but the job has 1 ranks; give at most 1"
    ):
        num_workers(spec(ranks=True, ray=RayOptions(min_processes=5)), [])


@pytest.mark.parametrize(
    ("codes", "gone", "code", "rank"),
    [
        ([0, 0], [], 0, None),
        ([0, 75], [], 75, None),
        ([1, 2], [], 2, 1),  # bad input says most
        ([1, 137], [], 137, 1),  # then what was killed, because of which its peer failed
        ([1], [1], 1, 1),  # then what is gone with its node
        ([1, 1], [], 1, 0),
        ([75], [1], 1, 1),
    ],
)
def test_the_rank_that_tells_most(codes: list[int], gone: list[int], code: int, rank: int | None) -> None:
    report = Report({0: "a", 1: "b"}, [End(k, one, "ab"[k]) for k, one in enumerate(codes)])
    found, failed = verdict(report, gone)
    assert (found, failed.rank if failed else None) == (code, rank)
    if gone and failed:
        assert (failed.code, failed.host, failed.how) == (GONE, "b", "is gone with its node or worker")


def test_no_rank_begins_after_a_request_to_stop() -> None:
    board = Board()
    assert board.begin(0, "a")
    board.stop()
    assert not board.begin(1, "b")
    assert board.report().hosts == {0: "a"}
    board.end(0, 75, "a")
    assert board.word() == "stop"


def test_a_ranks_secrets_are_read_on_its_own_node(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("value\n")
    made = spec(secrets={"TOKEN": f"file:{tmp_path / 'token'}"}, environment={"A": "b"}, ranks=True)
    found = environment(made, {"RANK": "3"})
    assert found["TOKEN"] == "value"
    assert (found["A"], found["RANK"], found["PYTHONPATH"]) == ("b", "3", "/shared/run/job/code")
    assert "value" not in RayLauncher().render(made)
