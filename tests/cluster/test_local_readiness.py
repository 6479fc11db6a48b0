"""What keeps a job from being started, and for how long: pauses, others, folders that are not there."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.job_folder import JobFolder
from cluster.launchers import launcher
from cluster.local_queue import Queue, Runner
from tests.cluster.queue_lab import DONE, only, ran, scripted, starts
from tests.waiting import until

Clock = Callable[[float], None]


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    """An empty queue; nothing of it runs when the test has ended."""
    made = Queue(tmp_path / "queue")
    yield made
    for entry in made.entries().values():
        assert not entry.holds()


@pytest.fixture
def forward(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Moves the wall clock, which stands still otherwise."""
    now = [time.time()]
    monkeypatch.setattr("time.time", lambda: now[0])

    def move(by_s: float) -> None:
        now[0] += by_s

    return move


def test_a_supervisor_that_comes_to_nothing_is_started_five_times(
    queue: Queue, tmp_path: Path, forward: Clock
) -> None:
    folder, runner = tmp_path / "a", Runner(queue, 4, 0)
    queue.add(scripted(folder, "exit 2"))
    ran(queue, runner)
    for number, wait_s in enumerate((1, 2, 4, 8), start=1):
        forward(wait_s / 100)
        runner.step()  # sees that it has ended
        forward(wait_s * 0.9)
        assert runner.step()
        assert len(starts(folder)) == number
        forward(wait_s * 0.2)
        ran(queue, runner)
    assert not runner.step()
    assert len(starts(folder)) == 5
    outcome = JobFolder(folder).outcome()
    assert outcome is not None
    assert (outcome.state, outcome.exit_code) == ("failed", 1)
    assert outcome.reason == "its supervisor ended 5 times without a word; see job/log.txt"


def test_a_supervisor_that_was_killed_after_a_while_goes_on_at_once(
    queue: Queue, tmp_path: Path, forward: Clock
) -> None:
    folder, runner = tmp_path / "a", Runner(queue, 4, 0)
    queue.add(scripted(folder, "kill -9 $$"))
    for number in range(1, 9):
        ran(queue, runner)
        forward(700)
        assert len(starts(folder)) == number
    JobFolder(folder).cancelled.touch()
    assert not runner.step()


def test_a_pause_ends_when_the_clock_is_set_back(queue: Queue, tmp_path: Path, forward: Clock) -> None:
    folder, runner = tmp_path / "a", Runner(queue, 4, 0)
    queue.add(scripted(folder, "exit 2"))
    ran(queue, runner)
    runner.step()
    forward(-86400)
    ran(queue, runner)
    assert len(starts(folder)) == 2
    JobFolder(folder).cancelled.touch()
    assert not runner.step()


def test_a_command_that_stops_by_itself_again_and_again_pauses(
    queue: Queue, tmp_path: Path, forward: Clock
) -> None:
    """Exit code 75 says: go on where I was. Once is believed; the next without a step further is not."""
    command = (sys.executable, "-c", "import sys; sys.exit(75)")
    spec = scripted(tmp_path / "a", "", command=command)
    place, runner = JobFolder(spec.folder), Runner(queue, 4, 0)
    place.script.write_text(launcher("local").render(spec))
    queue.add(spec)
    ran(queue, runner)
    ran(queue, runner)
    assert [attempt.kind for attempt in place.attempts()] == ["preempted"] * 2
    for wait_s in (1, 2):
        runner.step()
        forward(wait_s * 0.9)
        runner.step()
        assert not only(queue).holds()
        forward(wait_s * 0.2)
        ran(queue, runner)
    assert [attempt.kind for attempt in place.attempts()] == ["preempted"] * 4
    place.cancelled.touch()
    assert not runner.step()


def test_what_comes_after_another_job_takes_no_core_before(queue: Queue, tmp_path: Path) -> None:
    first, runner = tmp_path / "first", Runner(queue, 1, 0)
    queue.add(scripted(tmp_path / "second", DONE.format(tmp_path / "second"), after=(first,), priority=5))
    queue.add(scripted(first, DONE.format(first)))
    runner.step()
    until(lambda: starts(first))
    assert not starts(tmp_path / "second")
    until(lambda: not runner.step())
    assert starts(tmp_path / "second") == ["second"]


def test_what_waits_in_vain_is_started_so_that_it_can_say_so(queue: Queue, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    scripted(first, "")
    JobFolder(first).write_outcome("failed", 1, "")
    queue.add(scripted(second, DONE.format(second), after=(first,)))
    runner = Runner(queue, 1, 0)
    until(lambda: not runner.step())
    assert starts(second) == ["second"]


def test_a_folder_that_comes_late_is_waited_for(queue: Queue, tmp_path: Path, forward: Clock) -> None:
    folder, runner = tmp_path / "mount" / "a", Runner(queue, 4, 0)
    queue.add(scripted(folder, DONE.format(folder)))
    (tmp_path / "mount").rename(tmp_path / "aside")
    for _ in range(5):
        assert runner.step()
        forward(3000)
    (tmp_path / "mount").mkdir()
    assert runner.step()
    forward(3000)
    assert runner.step()
    (tmp_path / "mount").rmdir()
    (tmp_path / "aside").rename(tmp_path / "mount")
    until(lambda: not runner.step())
    assert starts(folder) == ["a"]


def test_a_folder_that_stays_missing_for_an_hour_was_deleted(
    queue: Queue, tmp_path: Path, forward: Clock
) -> None:
    queue.add(scripted(tmp_path / "a", ""))
    shutil.rmtree(tmp_path / "a")
    assert Runner(queue, 4, 0).step()
    forward(3599)
    assert Runner(queue, 4, 0).step()  # another runner knows since when
    forward(2)
    assert not Runner(queue, 4, 0).step()
