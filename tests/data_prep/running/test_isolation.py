"""Workers against real crashes, hangs and exceptions on a real Ray."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from data_prep.records import InputError
from data_prep.running import ray_session
from data_prep.running.isolation import MOST_TOGETHER, Failure, Limits, Task, Workers
from data_prep.running.ray_session import largest_memory_bytes


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


def test_short_items_travel_together_each_made_once_in_few_processes(
    workers: Workers, tmp_path: Path
) -> None:
    taken = 0

    def tasks() -> Iterator[Task[int]]:
        nonlocal taken
        for number in range(3000):
            taken += 1
            yield Task(f"n{number}", number)

    found: dict[str, tuple[int, int]] = {}
    for task, result in workers.run(square, tasks(), Limits(1, 60), tmp_path):
        assert not isinstance(result, Failure)
        found[task.name] = result
        assert taken - len(found) <= 3 * MOST_TOGETHER  # the rest is not read yet
    assert {name: value for name, (value, _) in found.items()} == {f"n{n}": n * n for n in range(3000)}
    assert len({pid for _, pid in found.values()}) <= 2  # what a worker has loaded is there for the next item
    assert not list(tmp_path.iterdir())


def square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def test_items_that_fill_a_node_together_run_one_after_the_other(workers: Workers, tmp_path: Path) -> None:
    list(workers.run(square, [Task("first", 0)], Limits(1, 60), tmp_path))  # so that there is a Ray
    most = largest_memory_bytes()
    tasks = [Task(f"n{n}", n, memory_bytes=share * most // 10) for n, share in enumerate((6, 6, 99, 6))]
    spans = [result for _, result in workers.run(spin, tasks, Limits(1, 60), tmp_path)]
    ordered = sorted(span for span in spans if not isinstance(span, Failure))
    assert len(ordered) == 4
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(ordered))


def spin(_: int) -> tuple[float, float]:
    """When it began and ended; as long as a short clip."""
    begun_s = time.monotonic()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000)
    return begun_s, time.monotonic()


def test_an_item_may_have_a_time_limit_of_its_own(workers: Workers, tmp_path: Path) -> None:
    scratch = tmp_path / "hang"
    scratch.mkdir()
    task = Task("hang", ("hang", str(scratch)), timeout_s=2)
    ((_, result),) = workers.run(behave, [task], Limits(max_attempts=1, timeout_s=1000), tmp_path)
    assert isinstance(result, Failure)
    assert result.detail == "more than 2 s"


@pytest.mark.slow
def test_a_ray_of_our_own_is_started_again_when_its_node_dies(workers: Workers, tmp_path: Path) -> None:
    killed = False
    found = set()
    for task, result in workers.run(spin, (Task(f"n{n}", n) for n in range(40)), Limits(1, 60), tmp_path):
        assert not isinstance(result, Failure), result
        found.add(task.name)
        for process in psutil.Process().children(recursive=True) if not killed else ():
            if process.name() == "raylet":
                process.kill()
                killed = True
    assert killed
    assert found == {f"n{n}" for n in range(40)}
    assert [r for _, r in workers.run(square, [Task("after", 3)], Limits(1, 60), tmp_path)] != []


def test_what_a_killed_driver_left_is_removed_and_what_a_living_one_has_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    living, lock = ray_session.own_folder()
    dead, gone = ray_session.own_folder()
    (dead / "logs").mkdir()
    gone.close()  # as the kernel does for a process that is killed
    ray_session.remove_abandoned()
    assert list(tmp_path.iterdir()) == [living]
    lock.close()


def test_nothing_to_do_starts_nothing(tmp_path: Path) -> None:
    with Workers(1) as idle:
        assert list(idle.run(behave, [], Limits(1, 1.0), tmp_path)) == []
