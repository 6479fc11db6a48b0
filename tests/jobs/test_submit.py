"""Submitting to this machine's queue as a person does: submit, jobs, status, logs, cancel, requeue, chains."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from cluster.job_folder import JobFolder
from cluster.local import LocalLauncher
from cluster.local_queue import own_queue
from cluster.spec import LIVE, JobError
from jobs.__main__ import main
from jobs.overview import states_of
from jobs.submission import registry
from tests.small_shards import make_shards
from tests.submitted import empty_the_queue
from tests.waiting import until

Say = Callable[..., str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty workplace with small shards; nothing of it runs when the test has ended."""
    monkeypatch.setenv("CASTBANK_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    make_shards(tmp_path / "shards", num_samples=2)
    yield tmp_path
    empty_the_queue()


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs castbank with words and gives what it printed, errors included; the expected exit code can be given."""

    def run(*words: str, code: int = 0) -> str:
        capsys.readouterr()
        got = main(words)
        out, err = capsys.readouterr()
        assert got == code, out + err
        return out + err

    return run


def write(path: Path, **keys: object) -> str:
    """A job file; JSON is YAML."""
    path.write_text(json.dumps(keys))
    return str(path)


def report_job(here: Path, name: str, shards: str = "shards", **keys: object) -> str:
    command = ["report", shards, "--output", str(here / f"{name}.html")]
    return write(here / f"{name}.yaml", name=name, folder=f"runs/{name}", command=command, **keys)


def ended(name: str) -> str:
    spec = JobFolder(registry().find(name)).spec()
    return until(lambda: s if (s := states_of({spec.id: spec})[spec.id].state) not in LIVE else "")


def test_a_job_from_submission_to_its_end(here: Path, say: Say) -> None:
    said = say("submit", report_job(here, "look"), "--on", "local", "environment.A=b")
    job_id = said.split(":")[0]
    assert job_id.startswith("look-")
    assert ended("look") == "succeeded"
    assert (here / "look.html").is_file()
    assert f"{job_id}  local  succeeded" in say("jobs")
    assert json.loads(say("jobs", "--json"))["state"] == "succeeded"
    assert "look.html" in say("logs", "look")
    status = say("status", job_id)
    assert f"state      succeeded\nfolder     {here / 'runs' / 'look'}\n" in status
    assert "castbank report shards --output" in status
    place = JobFolder(here / "runs" / "look")
    assert {path.name for path in place.code.iterdir()} == {"pipeline", "jobs", "data_prep", "cluster"}
    assert place.spec().environment["A"] == "b"


def test_a_job_keeps_the_code_that_it_was_submitted_with(here: Path, say: Say) -> None:
    """Its snapshot is what runs: one that is edited says so, and nothing else has changed."""
    say("submit", report_job(here, "look"), "--on", "local")
    assert ended("look") == "succeeded"
    place = JobFolder(here / "runs" / "look")
    verb = place.code / "jobs" / "report.py"
    verb.write_text(
        "SUMMARY = ''\n"
        "def configure(parser): parser.add_argument('x', nargs='*'); parser.add_argument('--output')\n"
        "def run(args): print('edited copy'); return 0\n"
    )
    say("requeue", "look")
    assert ended("look") == "succeeded"
    assert "edited copy" in say("logs", "look", "--rank", "0")


def test_a_dry_run_sends_nothing(here: Path, say: Say) -> None:
    text = say("submit", report_job(here, "look"), "--on", "local", "--dry-run")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert not (here / "runs").exists()
    assert say("jobs").startswith("no jobs")


def test_a_failed_job_says_what_it_needs(here: Path, say: Say) -> None:
    say("submit", report_job(here, "bad", "nowhere"), "--on", "local")
    assert ended("bad") == "failed"
    status = say("status", "bad")
    assert "ended with 2" in status
    assert "nowhere" in status.split("last words")[1]
    assert "castbank requeue bad-" in status.split("to go on")[1]
    (here / "nowhere").symlink_to("shards")
    assert "in the queue again" in say("requeue", "bad")
    assert ended("bad") == "succeeded"


def test_a_chain_runs_in_order_and_ends_where_a_step_fails(here: Path, say: Say) -> None:
    def report(shards: str, name: str) -> dict[str, object]:
        return {"command": ["report", shards, "--output", str(here / name)]}

    steps = {
        "a": report("shards", "a.html"),
        "b": report("nowhere", "b.html"),
        "c": report("shards", "c.html"),
    }
    said = say(
        "submit", write(here / "chain.yaml", name="chain", folder="chain", steps=steps), "--on", "local"
    )
    assert [line.split("-")[1] for line in said.splitlines()[:3]] == ["a", "b", "c"]
    assert [ended(f"chain-{step}") for step in "abc"] == ["succeeded", "failed", "failed"]
    assert "which this one comes after, has failed" in say("status", "chain-c")
    assert not (here / "c.html").exists()
    (here / "nowhere").symlink_to("shards")
    say("requeue", "chain-b")
    say("requeue", "chain-c")
    assert [ended(f"chain-{step}") for step in "bc"] == ["succeeded", "succeeded"]


def test_names_and_folders_of_live_jobs_are_taken(here: Path, say: Say) -> None:
    waits = report_job(here, "look")
    say("submit", waits, "--on", "local")
    assert ended("look") == "succeeded"
    JobFolder(here / "runs" / "look").job.joinpath("outcome.json").unlink()  # as if it ran: no outcome yet
    queue = own_queue()
    queue.add(JobFolder(here / "runs" / "look").spec())
    assert "folder: " in say("submit", waits, "--on", "local", code=2)
    other = report_job(here, "look", resources={})
    said = say("submit", other, "--on", "local", "folder=elsewhere", code=2)
    assert "name: 'look' is that of job look-" in said
    queue.ensure_runner()
    assert ended("look") == "succeeded"


def test_cancelling_twice_and_after_the_end(here: Path, say: Say) -> None:
    say("submit", report_job(here, "look"), "--on", "local")
    assert ended("look") == "succeeded"
    assert "succeeded already" in say("cancel", "look")
    assert "succeeded already" in say("cancel", "other", "look", code=2)  # one that is not there keeps nobody
    assert "no such id or folder" in say("cancel", "other", code=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("submit", "none.yaml", "--on", "local"), "'none.yaml' does not exist"),
        (("status", "nothing"), "job 'nothing': no such id or folder"),
        (("status", "shards"), "holds no job"),
        (("logs", "nothing"), "castbank jobs lists"),
    ],
)
def test_wrong_words(words: tuple[str, ...], message: str, here: Path, say: Say) -> None:
    assert message in say(*words, code=2)


@pytest.mark.parametrize(
    "verb", ["train", *(pytest.param(verb, marks=pytest.mark.slow) for verb in ("prepare", "cache"))]
)
def test_the_status_of_a_failed_job_of_any_verb(verb: str, here: Path, say: Say) -> None:
    command = {
        "prepare": ["prepare", "none.csv", "--output", "out"],
        "train": ["train", "data.shards=none"],
        "cache": ["cache", "data.shards=none"],
    }[verb]
    say(
        "submit", write(here / "job.json", name=verb, folder=f"runs/{verb}", command=command), "--on", "local"
    )
    assert ended(verb) == "failed"
    status = say("status", verb)
    assert f"castbank requeue {verb}-" in status
    assert "its input corrected" in status


def test_a_refused_submission_leaves_the_job_before_it_as_it_was(here: Path, say: Say) -> None:
    say("submit", report_job(here, "look"), "--on", "local")
    assert ended("look") == "succeeded"
    job = JobFolder(here / "runs" / "look").job
    before = {path: path.stat().st_ino for path in job.rglob("*") if path.is_file()}
    assert job / "code" / "jobs" / "__main__.py" in before
    text = report_job(here, "look", resources={"cpus_per_process": 4096})
    say("submit", text, "--on", "local", code=2)
    code = {path: inode for path, inode in before.items() if job / "code" in path.parents}
    assert {path: path.stat().st_ino for path in code} == code
    assert {path for path in job.rglob("*") if path.is_file()} == set(before)
    assert "succeeded" in say("jobs")
    assert "state      succeeded" in say("status", "look")


def test_a_scheduler_that_cannot_be_asked_is_no_reason_to_start_twice(
    here: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    say("submit", report_job(here, "look"), "--on", "local")
    assert ended("look") == "succeeded"
    place = JobFolder(here / "runs" / "look")
    place.forget_outcome()

    def silent(*_: object) -> NoReturn:
        raise JobError("the queue does not answer")

    monkeypatch.setattr(LocalLauncher, "states", silent)
    assert "unknown" in say("jobs")
    assert "does not answer" in say("requeue", "look", code=2)
    assert "does not answer" in say("submit", report_job(here, "look"), "--on", "local", code=2)
    assert "asked to end" in say("cancel", "look")
    assert place.cancelled.exists()


@pytest.mark.parametrize(
    "environment", [{"AWS_SECRET_ACCESS_KEY": "x"}, {"HF_TOKEN": "x"}, {"STORE": "https://token@host/x"}]
)
def test_a_secret_in_the_environment_is_refused(environment: dict[str, str], here: Path, say: Say) -> None:
    said = say("submit", report_job(here, "look", environment=environment), "--on", "local", code=2)
    assert f"environment.{next(iter(environment))}: looks like a secret" in said
    assert "give it as secrets." in said
    assert not (here / "runs").exists()


def test_a_training_is_no_array(here: Path, say: Say) -> None:
    command = ["train", "data.shards=shards", "run=runs/{part}"]
    text = write(here / "many.yaml", name="many", folder="runs/many", command=command, array=3)
    assert "array=3: came for train, whose processes are ranks" in say(
        "submit", text, "--on", "local", code=2
    )
    assert not (here / "runs").exists()


def test_what_a_scheduler_cannot_give_is_refused_before_anything_is_left(here: Path, say: Say) -> None:
    text = report_job(here, "big", resources={"cpus_per_process": 4096})
    assert "resources.cpus_per_process" in say("submit", text, "--on", "local", code=2)
    assert say("jobs").startswith("no jobs")
