"""How the steps of the demo run: as jobs, with their commands and logs."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.job_folder import JobFolder
from cluster.local_queue import own_queue
from data_prep.records import InputError
from jobs.demo import StepError, Steps
from jobs.submission import hand_over
from tests.waiting import until


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    monkeypatch.setenv("CASTBANK_HOME", str(tmp_path / "home"))
    return Steps(tmp_path / "jobs")


def test_a_step_shows_the_command_and_what_it_said(
    steps: Steps, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps("who", "--version")
    said = capsys.readouterr().out.splitlines()
    assert said[1] == "$ castbank --version"
    assert said[2].startswith("  castbank ")
    outcome = JobFolder(tmp_path / "jobs" / "who").outcome()
    assert outcome is not None
    assert outcome.state == "succeeded"


def test_a_step_that_fails_ends_with_its_code_and_says_where_to_look(
    steps: Steps, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(StepError) as failed:
        steps("look", "report", tmp_path / "nowhere")
    assert failed.value.code == 2
    said = capsys.readouterr().out
    assert "nowhere" in said.splitlines()[2]
    assert f"look has not succeeded: castbank status {tmp_path / 'jobs' / 'look'}" in said


def test_a_step_of_an_earlier_demo_that_still_runs_is_not_started_twice(steps: Steps, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    waits = (sys.executable, "-c", f"open({str(tmp_path / 'gate')!r}).read()")
    hand_over(replace(steps.spec("train", ()), command=waits), ())
    with pytest.raises(InputError, match="the train of an earlier demo still runs"):
        steps("train", "--version")
    with (tmp_path / "gate").open("w"):
        pass
    until(lambda: not own_queue().entries())
