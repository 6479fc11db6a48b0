"""The command line as a person meets it: help, wrong verbs, exit codes."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from data_prep.records import InputError
from jobs import __main__ as command


def castbank(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs", *arguments], capture_output=True, text=True, check=False
    )


def test_help_names_every_verb() -> None:
    done = castbank("--help")
    assert done.returncode == 0
    assert all(f"\n    {verb} " in done.stdout for verb in command.VERBS)


@pytest.mark.parametrize("verb", command.VERBS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    done = castbank(verb, "--help")
    assert done.returncode == 0, done.stderr
    assert f"castbank {verb}" in done.stdout.split("usage:")[1]
    assert "example:" in done.stdout or "\nexamples:" in done.stdout


def test_no_verb_and_a_wrong_verb_exit_2() -> None:
    assert castbank().returncode == 2
    done = castbank("trian")
    assert done.returncode == 2
    assert "invalid choice: 'trian'" in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (
            InputError("manifest 'x.csv' does not exist"),
            2,
            "castbank doctor: manifest 'x.csv' does not exist",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_goes_wrong_becomes_an_exit_code(
    error: BaseException,
    code: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from jobs import doctor

    def run(args: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr(doctor, "run", run)
    assert command.main(["doctor"]) == code
    assert text in capsys.readouterr().err


def test_a_bug_is_shown_whole() -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["prepare", "--no-such-flag"])
    assert stopped.value.code == 2
