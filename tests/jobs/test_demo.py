"""How the steps of the demo run: as jobs, with their commands and logs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cluster.local import LocalLauncher
from cluster.spec import JobSpec
from data_prep.records import InputError
from jobs.demo import StepError, Steps


def test_a_step_shows_the_command_and_what_it_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Steps(tmp_path)("who", "--version")
    said = capsys.readouterr().out.splitlines()
    assert said[1] == "$ castbank --version"
    assert said[2].startswith("  castbank ")
    assert (tmp_path / "who" / "exit_code").read_text() == "0\n"


def test_a_step_that_fails_ends_with_its_code_and_names_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(StepError) as failed:
        Steps(tmp_path)("look", "report", tmp_path / "nowhere")
    assert failed.value.code == 2
    assert f"look ended with 2; its log: {tmp_path / 'look' / 'log.txt'}" in capsys.readouterr().out


def test_a_step_of_an_earlier_demo_that_still_runs_is_not_started_twice(tmp_path: Path) -> None:
    launcher = LocalLauncher()
    sleep = (sys.executable, "-c", "import time; time.sleep(600)")
    job = launcher.submit(JobSpec("train", sleep, tmp_path / "train"))
    try:
        with pytest.raises(InputError, match="the train of an earlier demo still runs"):
            Steps(tmp_path)("train", "--version")
    finally:
        launcher.cancel(job)
        assert list(launcher.follow(job)) == []
