"""Workers against real crashes, hangs and exceptions on a real Ray."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_prep.isolation import Failure, Limits, Task, Workers
from data_prep.records import InputError


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    import ray
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # this file is not importable in a worker
    with Workers(2) as made:
        yield made
    assert not ray.is_initialized()


def behave(item: tuple[str, str]) -> str:
    """What the item says; ``scratch`` counts attempts, one file each."""
    action, scratch = item
    attempt = len(list(Path(scratch).iterdir()))
    (Path(scratch) / str(attempt)).touch()
    if action == "abort":
        os.write(2, b"last words of native code\n")
        os.abort()
    if action == "exit":
        os._exit(7)
    if action == "hang":
        threading.Event().wait()
    if action == "abort once" and attempt == 0:
        os.abort()
    if action == "bug":
        raise KeyError("no such thing")
    if action == "input":
        raise InputError("field x: y came")
    if action == "full":
        raise OSError(errno.ENOSPC, "No space left on device")
    return f"{action} done, OMP {os.environ['OMP_NUM_THREADS']}"


def run(
    workers: Workers, folder: Path, actions: list[str], limits: Limits
) -> dict[str, tuple[str | Failure, int]]:
    """By action: the result, and how often it was attempted."""
    tasks = []
    for action in actions:
        scratch = folder / action
        scratch.mkdir()
        tasks.append(Task(action, (action, str(scratch))))
    found = {task.name: result for task, result in workers.run(behave, tasks, limits, folder)}
    return {name: (result, len(list((folder / name).iterdir()))) for name, result in found.items()}


def test_crashes_and_bugs_cost_their_own_item_only(workers: Workers, tmp_path: Path) -> None:
    actions = ["one", "abort", "two", "exit", "bug", "abort once", "three"]
    found = run(workers, tmp_path, actions, Limits(max_attempts=2, timeout_s=60))
    for name in ("one", "two", "three"):
        result, attempts = found[name]
        assert result == f"{name} done, OMP 1"
        assert attempts <= 2  # one that is short and shared a batch with a crash may be made again
    assert found["abort once"][0] == "abort once done, OMP 1"
    crash, attempts = found["abort"]
    assert isinstance(crash, Failure)
    assert (crash.error_class, crash.attempts, attempts) == ("WorkerCrashedError", 2, 2)
    assert "last words of native code" in crash.detail
    gone, _ = found["exit"]
    assert isinstance(gone, Failure)
    bug, attempts = found["bug"]
    assert isinstance(bug, Failure)
    assert (bug.error_class, attempts) == ("KeyError", 2)
    assert "no such thing" in bug.detail
    assert not list(tmp_path.glob("*.stderr"))


def test_a_hanging_item_is_killed_and_its_worker_replaced(workers: Workers, tmp_path: Path) -> None:
    found = run(workers, tmp_path, ["hang", "one", "two"], Limits(max_attempts=1, timeout_s=3))
    assert isinstance(found["hang"][0], Failure)
    assert (found["hang"][0].error_class, found["hang"][0].detail) == ("TimeoutError", "more than 3 s")
    assert found["two"][0] == "two done, OMP 1"


@pytest.mark.parametrize(("action", "error"), [("input", InputError), ("full", OSError)])
def test_what_is_not_the_items_fault_is_raised(
    workers: Workers, tmp_path: Path, action: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"y came|No space left"):
        run(workers, tmp_path, [action], Limits(max_attempts=3, timeout_s=60))
    assert len(list((tmp_path / action).iterdir())) == 1


def test_nothing_to_do_starts_nothing(tmp_path: Path) -> None:
    with Workers(1) as idle:
        assert list(idle.run(behave, [], Limits(1, 1.0), tmp_path)) == []
