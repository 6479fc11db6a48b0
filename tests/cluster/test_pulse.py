"""Real processes with a pulse: seen, fenced off, stopped by a file, stuck, on a full disk, asked where they are."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.heartbeats import Heartbeat, read
from cluster.job_folder import JobFolder
from cluster.stacks import ask_for_stacks

PATIENCE_S = 60.0
RANK = """
import resource, signal, sys, threading
from pathlib import Path
from cluster import pulse
from cluster.job_folder import JobFolder
pulse.BEAT_S = 0.05
folder, token, hang_s, index = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
job = JobFolder(folder)
care = pulse.Care(job.job, pulse.Fence(job, token), (job.stop, job.cancelled), hang_s)
mine = pulse.Pulse(index, 2, token, care)
mine.start()
def say(word): print(word, flush=True)
def in_a_deep_hole(): threading.Event().wait()
"""


def until(happened: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Wait, within bounds, for what another process does to be seen on disk."""
    pause, until_s = threading.Event(), time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < until_s, "it never happened"
        assert process is None or process.poll() is None, "the process ended"
        pause.wait(0.02)


@contextmanager
def rank(folder: Path, code: str, index: int = 0, hang_s: float = 600.0) -> Iterator[subprocess.Popen[str]]:
    """A process with a pulse that runs some code, as rank ``index`` of attempt ``mine``."""
    JobFolder(folder).job.mkdir(parents=True, exist_ok=True)
    (JobFolder(folder).job / "spec.json").touch()
    words = [sys.executable, "-c", RANK + code, str(folder), "mine", str(hang_s), str(index)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def last(folder: Path, index: int = 0) -> Heartbeat | None:
    return next((beat for beat in read(JobFolder(folder).heartbeats) if beat.rank == index), None)


def test_others_see_what_a_rank_does_and_that_it_lives(tmp_path: Path) -> None:
    with rank(tmp_path, "mine.beat('train', 7); in_a_deep_hole()", 1) as process:
        until(lambda: (beat := last(tmp_path, 1)) and beat.step == 7, process)
        first = last(tmp_path, 1)
        assert first is not None
        assert (first.phase, first.pid, first.token) == ("train", process.pid, "mine")
        until(lambda: (beat := last(tmp_path, 1)) and beat.alive_at_s > first.alive_at_s, process)
        again = last(tmp_path, 1)
        assert again is not None
        assert again.step_at_s == first.step_at_s  # alive, and has not moved


def test_the_last_word_is_on_disk_when_the_pulse_has_stopped(tmp_path: Path) -> None:
    with rank(tmp_path, "mine.beat('train', 1); mine.beat('done', 3); mine.stop()") as process:
        assert process.wait(PATIENCE_S) == 0
    beat = last(tmp_path)
    assert beat is not None
    assert (beat.phase, beat.step) == ("done", 3)


@pytest.mark.parametrize("waiting", [True, False], ids=["main-thread-stuck", "main-thread-beats"])
def test_an_attempt_that_is_over_ends_and_writes_nothing_more(waiting: bool, tmp_path: Path) -> None:
    job = JobFolder(tmp_path)
    code = "say('up')\n" + ("in_a_deep_hole()" if waiting else "while True: mine.beat('train', 1)")
    job.claim("mine")
    with rank(tmp_path, code, index=1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        until(lambda: last(tmp_path, 1), process)
        job.claim("newer")
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert f"attempt mine of job {str(tmp_path)!r} is over: newer has taken it over" in said
    assert "Traceback" not in said


def test_what_is_written_last_is_never_of_an_attempt_that_is_over(tmp_path: Path) -> None:
    job = JobFolder(tmp_path)
    job.claim("newer")
    with rank(tmp_path, "mine.beat('checkpoint', 5); job.script.write_text('written')") as process:
        assert process.wait(PATIENCE_S) == 1
    assert last(tmp_path) is None
    assert not job.script.exists()


@pytest.mark.parametrize("name", ["stop", "cancelled"])
def test_a_file_asks_to_stop_as_a_signal_does(name: str, tmp_path: Path) -> None:
    code = "signal.signal(signal.SIGTERM, lambda *_: (say('asked'), sys.exit(75)))\nsay('up')\n"
    code += "while True: signal.pause()"
    with rank(tmp_path, code) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        (JobFolder(tmp_path).job / name).touch()
        assert process.stdout.readline() == "asked\n"
        assert process.wait(PATIENCE_S) == 75


def test_a_rank_that_is_stuck_shows_where_and_ends(tmp_path: Path) -> None:
    with rank(tmp_path, "mine.beat('train', 3); in_a_deep_hole()", hang_s=0.3) as process:
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "rank 0 of 2 has not moved for 0.3 s: 'train' at step 3" in said
    assert "in in_a_deep_hole" in said


def test_a_disk_that_takes_nothing_does_not_disturb(tmp_path: Path) -> None:
    code = (
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "before = threading.active_count()\n"
        "for step in range(20): mine.beat('train', step); threading.Event().wait(0.02)\n"
        "say(f'{before} {threading.active_count()} {mine.step}')"
    )
    with rank(tmp_path, code) as process:
        said, errors = process.communicate(timeout=PATIENCE_S)
    assert (said, errors) == ("2 2 19\n", "")


def test_every_rank_says_where_it_is_also_while_it_is_stuck(tmp_path: Path) -> None:
    stuck, busy = (
        "mine.beat('train', 3); in_a_deep_hole()",
        "mine.beat('checkpoint', 3)\nwhile True: threading.Event().wait(0.01)",
    )
    with rank(tmp_path, stuck) as first, rank(tmp_path, busy, 1) as second:
        until(lambda: last(tmp_path) and last(tmp_path, 1))
        found = ask_for_stacks(tmp_path, PATIENCE_S)
        again = ask_for_stacks(tmp_path, PATIENCE_S)
        assert (first.poll(), second.poll()) == (None, None)
    assert sorted(found) == sorted(again) == [0, 1]
    assert "in in_a_deep_hole" in found[0]
    assert "in in_a_deep_hole" in again[0]
    assert "in in_a_deep_hole" not in found[1]
    assert not (JobFolder(tmp_path).job / "stacks-wanted").exists()


def test_a_rank_that_is_frozen_is_seen_from_outside(tmp_path: Path) -> None:
    with rank(tmp_path, "mine.beat('train', 3); in_a_deep_hole()") as process:
        until(lambda: (beat := last(tmp_path)) and beat.step == 3, process)
        process.send_signal(signal.SIGSTOP)
        found = ask_for_stacks(tmp_path, 0.5)
    assert "did not answer within 0.5 s" in found[0]
    assert "in_a_deep_hole" in found[0] or "py-spy" in found[0]
