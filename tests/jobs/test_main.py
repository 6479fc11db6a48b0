"""The command line as a person meets it: help, wrong verbs, exit codes."""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
from pathlib import Path

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
    assert all(re.search(rf"\n    {verb}\s", done.stdout) for verb in command.VERBS)


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


def with_doctor_that(does: str) -> subprocess.Popen[str]:
    """``castbank doctor`` in a process of its own, whose work is this Python."""
    code = (
        "import os, signal, sys\n"
        "from jobs import __main__, doctor\n"
        f"def run(args):\n    {does}\n"
        "doctor.run = run\n"
        "sys.exit(__main__.main(['doctor']))"
    )
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_bug_is_shown_whole_and_exits_1() -> None:
    _, said = (bug := with_doctor_that("{}['no such key']")).communicate()
    assert bug.returncode == 1
    assert said.startswith("Traceback")
    assert "KeyError: 'no such key'" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_stop_signal_ends_a_verb_as_ctrl_c_does_and_exits_75(number: signal.Signals) -> None:
    job = with_doctor_that("print('ready', flush=True); signal.pause()")
    assert job.stdout is not None
    assert job.stdout.readline() == "ready\n"
    job.send_signal(number)
    _, said = job.communicate()
    assert job.returncode == 75
    assert said.strip().splitlines() == [
        f"castbank doctor: stopped by {number.name}; nothing half-written stays, run it again to go on"
    ]


def test_a_stop_signal_in_a_callback_is_not_lost() -> None:
    """As in one that an import makes, where what a handler raises goes no further."""
    lost = "class Lost:\n        def __del__(self): signal.raise_signal(signal.SIGTERM); self.here = True\n"
    job = with_doctor_that(f"{lost}    Lost()\n    signal.pause()")
    _, said = job.communicate(timeout=60)
    assert job.returncode == 75
    assert said.strip().splitlines() == [
        "castbank doctor: stopped by SIGTERM; nothing half-written stays, run it again to go on"
    ]


def test_a_stop_signal_waits_for_the_end_of_an_import(tmp_path: Path) -> None:
    """Of which the rest would be missing where what ends the verb wants it."""
    (tmp_path / "slow_to_import.py").write_text(
        "import os, signal\nsignal.raise_signal(signal.SIGTERM)\nfor _ in range(1000): pass\nwhole = True\n"
    )
    words = (
        f"sys.path.insert(0, {str(tmp_path)!r}); import slow_to_import as made; print(made.whole, flush=True)"
    )
    job = with_doctor_that(f"{words}\n    signal.pause()")
    said, _ = job.communicate(timeout=60)
    assert (job.returncode, said) == (75, "True\n")


def test_a_second_sigterm_does_not_disturb_the_ending() -> None:
    ending = "try: print('ready', flush=True); signal.pause()\n"
    ending += "    finally: os.kill(os.getpid(), signal.SIGTERM); print('ended well')"
    job = with_doctor_that(ending)
    assert job.stdout is not None
    assert job.stdout.readline() == "ready\n"
    job.terminate()
    said, _ = job.communicate()
    assert (job.returncode, said) == (75, "ended well\n")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["prepare", "a.csv", "--output", "o", "--no-such-flag"], "unrecognized arguments: --no-such-flag\n"),
        (["prepare", "a.csv"], "the following arguments are required: --output\n"),
        (["prepare", "--output", "o"], "the following arguments are required: MANIFEST\n"),
    ],
)
def test_a_wrong_command_line_exits_2_and_says_what_is_wrong(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith(named)
