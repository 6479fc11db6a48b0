"""Runs a function over many items on Ray so that an item may crash its process without harm.

A decoder that segfaults, a model that runs out of memory, a video that hangs: each costs one worker process and
one attempt. Attempts are counted here and not by Ray, because Ray retries a crash but not an exception, cannot
time a task out, and does not say what the dead process wrote to its stderr.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from data_prep.records import InputError

T = TypeVar("T")
R = TypeVar("R")

CALLS_PER_WORKER = (
    64  # then its process is replaced, so that what decoders leak stays bounded; a start costs 2 s
)
NOISE = "A worker died or was killed"  # Ray prints it to stdout whatever it is told; a Failure says it better
POLL_S = 0.5  # how late a timeout may be noticed
STDERR_TAIL = 2000  # characters kept of what a failed attempt wrote
MAX_LOST = 5  # attempts of one item that may end with a node's death before the item is taken for its cause
OBJECT_STORE_BYTES = (
    128 * 1024**2
)  # results are small, data goes by file; Ray's default is 30 % of the memory


@dataclass(frozen=True)
class Limits:
    """max_attempts: per item, crashes and exceptions alike; timeout_s: per attempt."""

    max_attempts: int
    timeout_s: float


@dataclass(frozen=True)
class Failure:
    """An item that failed ``attempts`` times; error_class and detail are those of the last."""

    error_class: str
    detail: str
    attempts: int


@dataclass(frozen=True)
class Task(Generic[T]):
    """An item under its name, which is a file name too."""

    name: str
    item: T


@dataclass(frozen=True)
class _Turn(Generic[T]):
    """A task's next attempt. lost: earlier ones that a node took with it; they are not counted in ``number``."""

    task: Task[T]
    number: int = 1
    lost: int = 0


@dataclass
class _Attempt(Generic[T]):
    turn: _Turn[T]
    deadline_s: float  # reckoned from its start, which its log marks
    log: Path


@dataclass(frozen=True)
class _Lost:
    """The attempt's node died, or its result was on one."""

    detail: str


class Workers:
    """Ray, as a context manager: the caller's if it has one, else the one that RAY_ADDRESS names, else our own.

    num_workers: tasks at once; 0 is one per core, of this machine or of the cluster. A Ray of our own starts at the
    first use, keeps its files in a new folder under the system's temporary folder, and leaves no process and no
    file behind.
    """

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers or len(os.sched_getaffinity(0))
        self._one_per_core = num_workers == 0
        self._folder: Path | None = None
        self._started = False

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started:
            import ray

            ray.shutdown()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def run(
        self,
        work: Callable[[T], R],
        tasks: Sequence[Task[T]],
        limits: Limits,
        logs: Path,
        on_gpu: bool = False,
    ) -> Iterator[tuple[Task[T], R | Failure]]:
        """Yield every task with its result as it comes, or with the failure that used up its attempts.

        ``logs`` is a folder for what running attempts write to stderr; ``on_gpu`` gives each task a GPU of its own
        where Ray has any, and runs as many at once as there are. An InputError and a full disk are not the
        item's fault and are raised.
        """
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", NOISE)
        import ray

        if tasks:
            self._start()
        gpus = int(ray.cluster_resources().get("GPU", 0)) if on_gpu and tasks else 0
        remote = ray.remote(num_cpus=1, num_gpus=min(gpus, 1), max_retries=0, max_calls=CALLS_PER_WORKER)(
            _run_logged
        )
        waiting = deque(_Turn(task) for task in tasks)
        running: dict[Any, _Attempt[T]] = {}
        while waiting or running:
            while waiting and len(running) < (gpus or self.num_workers):
                turn = waiting.popleft()
                log = logs / f"{turn.task.name}.{turn.number + turn.lost}.stderr"
                reference = remote.remote(work, turn.task.item, log)
                running[reference] = _Attempt(turn, time.monotonic() + limits.timeout_s, log)
            for reference in _finished(running, limits):
                attempt = running.pop(reference)
                result = _result(reference, attempt, limits)
                if isinstance(result, _Lost):
                    self._count_workers()
                again = _again(attempt.turn, result, limits)
                if again is not None:
                    waiting.append(again)
                else:
                    yield attempt.turn.task, _as_failure(attempt.turn, result)

    def _start(self) -> None:
        import ray

        if not ray.is_initialized():
            self._started = True  # from here on there is something to shut down
            with _own_sigterm():
                self._init()
        self._count_workers()

    def _count_workers(self) -> None:
        """As many as there are cores now, where nobody has said how many; more would only wait in Ray's queue."""
        import ray

        if self._one_per_core:
            self.num_workers = max(1, int(ray.cluster_resources().get("CPU", 1)))

    def _init(self) -> None:
        import ray

        if address := os.environ.get("RAY_ADDRESS"):
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            return
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # else a token is made that later clients lack
        self._folder = Path(tempfile.mkdtemp(prefix="castbank-ray-"))
        ray.init(
            address="local",
            num_cpus=self.num_workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=OBJECT_STORE_BYTES,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
            _temp_dir=str(self._folder),
        )


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keeps the SIGTERM handler of whoever has one; ray.init puts in its own, which exits, and what comes to that
    one meanwhile is handed on."""
    before = signal.getsignal(signal.SIGTERM)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        yield
    except SystemExit:
        before(signal.SIGTERM, None)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _run_logged(work: Callable[[T], R], item: T, log: Path) -> R:
    """In the worker: run with stderr, also that of native code, in a file that outlives the process."""
    if not log.parent.is_dir():
        raise InputError(
            f"folder {log.parent} is not there on {os.uname().nodename}, a node of the Ray cluster; output must be "
            "a folder that all of its nodes see"
        )
    saved = os.dup(2)
    with log.open("wb") as stream:
        os.dup2(stream.fileno(), 2)
        try:
            result = work(item)
        finally:
            os.dup2(saved, 2)
            os.close(saved)
    log.unlink(missing_ok=True)
    return result


def _again(turn: _Turn[T], result: Any, limits: Limits) -> _Turn[T] | None:
    """The task's next attempt; None where its result stands."""
    if isinstance(result, _Lost) and turn.lost + 1 < MAX_LOST:
        return replace(turn, lost=turn.lost + 1)
    if isinstance(result, Failure) and turn.number < limits.max_attempts:
        return replace(turn, number=turn.number + 1)
    return None


def _as_failure(turn: _Turn[T], result: Any) -> Any:
    if isinstance(result, _Lost):
        return Failure("NodeDiedError", f"{turn.lost + 1} nodes died under it; {result.detail}", turn.number)
    return result


def _finished(running: dict[Any, _Attempt[T]], limits: Limits) -> list[Any]:
    """What is done or overdue; waits a moment for the first. Overdue tasks are killed with their worker; those that
    wait in Ray's queue, as where a node is gone and its cores with it, are given their time anew."""
    import ray

    done, others = ray.wait(list(running), num_returns=1, timeout=POLL_S)
    overdue = []
    for reference in others:
        attempt = running[reference]
        if attempt.deadline_s >= time.monotonic():
            continue
        if attempt.log.exists():
            overdue.append(reference)
            ray.cancel(reference, force=True)
        else:
            attempt.deadline_s = time.monotonic() + limits.timeout_s
    return [*done, *overdue]


def _result(reference: Any, attempt: _Attempt[Any], limits: Limits) -> Any:
    import ray
    from ray.exceptions import (
        GetTimeoutError,
        LocalRayletDiedError,
        NodeDiedError,
        ObjectLostError,
        RayError,
        RayTaskError,
        TaskCancelledError,
    )

    try:
        return ray.get(reference, timeout=POLL_S * 20)
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, BaseException) else error
        if isinstance(cause, InputError) or _disk_is_full(cause):
            raise cause from error
        trace = str(error).partition("\n")[2]  # its first line names process and host
        failure = Failure(type(cause).__name__, trace.rstrip(), attempt.turn.number)
    except (TaskCancelledError, GetTimeoutError):
        failure = Failure("TimeoutError", f"more than {limits.timeout_s:g} s", attempt.turn.number)
    except LocalRayletDiedError:  # this process's own node; nothing can be had from Ray any more
        raise
    except (NodeDiedError, ObjectLostError) as error:
        attempt.log.unlink(missing_ok=True)
        return _Lost(str(error).partition("\n")[0])
    except RayError as error:
        failure = Failure(type(error).__name__, _tail(attempt.log), attempt.turn.number)
    attempt.log.unlink(missing_ok=True)
    return Failure(failure.error_class, failure.detail[-STDERR_TAIL:], failure.attempts)


def _disk_is_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _tail(log: Path) -> str:
    """The end of what a dead process wrote; from the fatal error on where Python's fault handler named one,
    without its list of every loaded module."""
    text = log.read_bytes().decode(errors="replace") if log.is_file() else ""
    text = "\n".join(line for line in text.splitlines() if not line.startswith("Extension modules:")).strip()
    before, fatal, after = text.rpartition("Fatal Python error")
    if fatal:
        text = (before[-STDERR_TAIL // 2 :] + fatal + after)[:STDERR_TAIL]
    return text[-STDERR_TAIL:] or "the process died and wrote nothing"
