"""The queue and its runner, step by step: one entry per folder, one changer at a time, no trouble for others."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.job_folder import JobFolder
from cluster.local_entries import Entry, Process, load
from cluster.local_queue import Queue, Runner
from cluster.local_readiness import settled
from tests.cluster.queue_lab import DONE, only, ran, scripted, starts
from tests.waiting import until


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    """An empty queue; nothing of it runs when the test has ended."""
    made = Queue(tmp_path / "queue")
    yield made
    for entry in made.entries().values():
        assert not entry.holds()


def test_a_job_that_waits_and_is_submitted_again_waits_once(queue: Queue, tmp_path: Path) -> None:
    spec = scripted(tmp_path / "a", "")
    queue.add(spec)
    queue.add(scripted(tmp_path / "b", ""))
    queue.add(spec)
    assert [entry.id for entry in queue.entries().values()] == ["b", "a"]


@pytest.mark.parametrize("again", ["a", "other"])
def test_a_submission_starts_when_the_one_before_it_in_its_folder_has_ended(
    again: str, queue: Queue, tmp_path: Path
) -> None:
    """The old supervisor has written its outcome, and is not gone yet, when the owner asks for more."""
    os.mkfifo(tmp_path / "gate")
    folder, runner = tmp_path / "a", Runner(queue, 4, 0)
    finish = DONE.format(folder)
    queue.add(scripted(folder, f"{finish}; read < {tmp_path}/gate"))
    runner.step()
    until(lambda: JobFolder(folder).outcome())
    old = only(queue)
    JobFolder(folder).renew()
    queue.add(scripted(folder, finish, id=again))
    for _ in range(3):
        assert runner.step()
    assert (only(queue).id, only(queue).awaits) == (again, old.supervisor)
    assert starts(folder) == ["a"]
    with (tmp_path / "gate").open("w"):
        pass
    until(lambda: not runner.step())
    assert starts(folder) == ["a", again]


def test_a_later_job_is_not_ended_by_the_outcome_of_the_one_before(queue: Queue, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    folder, runner = tmp_path / "a", Runner(queue, 4, 0)
    queue.add(scripted(folder, f"read < {tmp_path}/gate; {DONE.format(folder)}"))
    runner.step()
    until(lambda: starts(folder))
    queue.add(scripted(folder, DONE.format(folder), id="next"))
    with (tmp_path / "gate").open("w"):
        pass
    until(lambda: not runner.step())
    assert starts(folder) == ["a", "next"]


def test_nobody_adds_while_another_changes_the_queue(queue: Queue, tmp_path: Path) -> None:
    spec = scripted(tmp_path / "a", "")
    adding = threading.Thread(target=queue.add, args=(spec,))
    with queue.changes():
        inode = f":{(queue.folder / 'changes').stat().st_ino} "
        adding.start()
        until(
            lambda: any(
                "-> FLOCK" in line and inode in line for line in Path("/proc/locks").read_text().splitlines()
            )
        )
        assert not queue.paths()
    adding.join()
    assert only(queue).id == "a"


def test_a_cancellation_just_before_the_start_is_not_forgotten(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = scripted(tmp_path / "a", "")
    place, runner = JobFolder(spec.folder), Runner(queue, 4, 0)
    queue.add(spec)
    place.stop.touch()

    def cancelled_after(path: Path, entry: Entry) -> Entry | None:
        found = settled(path, entry)
        place.cancelled.touch()
        return found

    with monkeypatch.context() as patch:
        patch.setattr("cluster.local_queue.settled", cancelled_after)
        ran(queue, runner)
    assert starts(spec.folder) == ["a"]
    assert place.cancelled.exists()
    assert not place.stop.exists()
    assert not runner.step()
    assert (outcome := place.outcome()) is not None
    assert outcome.state == "cancelled"


@pytest.mark.parametrize("damage", ["outcome", "log", "entry"])
def test_one_bad_folder_holds_up_no_other(
    damage: str,
    queue: Queue,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A folder where a file should be gives the OSError that a stale mount or a foreign owner would."""
    bad, good, runner = tmp_path / "bad", tmp_path / "good", Runner(queue, 4, 0)
    queue.add(scripted(bad, DONE.format(bad)))
    (path,) = queue.paths()
    text = path.read_text()
    queue.add(scripted(good, DONE.format(good)))
    if damage == "entry":
        path.write_text(json.dumps(json.loads(text) | {"of_a_later_version": 1}))
    else:
        blocked = JobFolder(bad).job / {"outcome": "outcome.json", "log": "log.txt"}[damage]
        blocked.mkdir()
    until(lambda: runner.step() and len(queue.paths()) == 1)
    assert starts(good) == ["good"]
    assert capsys.readouterr().err.count("bad.json waits: ") == 1
    if damage == "entry":
        path.write_text(text)
    else:
        blocked.rmdir()
    assert runner.step()
    runner = Runner(queue, 4, 0)
    until(lambda: not runner.step())
    assert starts(bad) == ["bad"]


def test_a_supervisor_that_cannot_be_noted_is_ended(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk; without its number in the entry it would be started a second time."""
    os.mkfifo(tmp_path / "gate")
    seen: list[Process] = []

    def full(path: Path, entry: Entry) -> Entry:
        assert entry.supervisor
        seen.append(entry.supervisor)
        raise OSError(28, "No space left on device")

    queue.add(scripted(tmp_path / "a", f"exec 3< {tmp_path}/gate"))
    runner = Runner(queue, 1, 0)
    with monkeypatch.context() as patch:
        patch.setattr("cluster.local_queue.save", full)
        assert runner.step()
    until(lambda: not seen[0].alive())
    assert runner.step()
    assert len(seen) == 1
    assert load(*queue.paths()).supervisor is None
