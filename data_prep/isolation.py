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
from dataclasses import dataclass
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
class _Attempt(Generic[T]):
    task: Task[T]
    number: int
    deadline_s: float
    log: Path


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
        self, work: Callable[[T], R], tasks: Sequence[Task[T]], limits: Limits, logs: Path
    ) -> Iterator[tuple[Task[T], R | Failure]]:
        """Yield every task with its result as it comes, or with the failure that used up its attempts.

        ``logs`` is a folder for what running attempts write to stderr. An InputError and a full disk are not the
        item's fault and are raised.
        """
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", NOISE)
        import ray

        if tasks:
            self._start()
        remote = ray.remote(num_cpus=1, max_retries=0, max_calls=CALLS_PER_WORKER)(_run_logged)
        waiting = deque((task, 1) for task in tasks)
        running: dict[Any, _Attempt[T]] = {}
        while waiting or running:
            while waiting and len(running) < self.num_workers:
                task, number = waiting.popleft()
                log = logs / f"{task.name}.stderr"
                reference = remote.remote(work, task.item, log)
                running[reference] = _Attempt(task, number, time.monotonic() + limits.timeout_s, log)
            for reference in _finished(running):
                attempt = running.pop(reference)
                result = _result(reference, attempt, limits)
                if isinstance(result, Failure) and attempt.number < limits.max_attempts:
                    waiting.append((attempt.task, attempt.number + 1))
                else:
                    yield attempt.task, result

    def _start(self) -> None:
        import ray

        if not ray.is_initialized():
            self._started = True  # from here on there is something to shut down
            with _own_sigterm():
                self._init()
        if self._one_per_core:  # more than the cores would wait in Ray's queue while their timeout runs
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
    saved = os.dup(2)
    with log.open("wb") as stream:
        os.dup2(stream.fileno(), 2)
        try:
            result = work(item)
        finally:
            os.dup2(saved, 2)
            os.close(saved)
    log.unlink()
    return result


def _finished(running: dict[Any, _Attempt[T]]) -> list[Any]:
    """What is done or overdue; waits a moment for the first. Overdue tasks are killed with their worker."""
    import ray

    done, others = ray.wait(list(running), num_returns=1, timeout=POLL_S)
    overdue = [reference for reference in others if running[reference].deadline_s < time.monotonic()]
    for reference in overdue:
        ray.cancel(reference, force=True)
    return [*done, *overdue]


def _result(reference: Any, attempt: _Attempt[Any], limits: Limits) -> Any:
    import ray
    from ray.exceptions import GetTimeoutError, RayError, RayTaskError, TaskCancelledError

    try:
        return ray.get(reference, timeout=POLL_S * 20)
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, BaseException) else error
        if isinstance(cause, InputError) or _disk_is_full(cause):
            raise cause from error
        trace = str(error).partition("\n")[2]  # its first line names process and host
        failure = Failure(type(cause).__name__, trace.rstrip(), attempt.number)
    except (TaskCancelledError, GetTimeoutError):
        failure = Failure("TimeoutError", f"more than {limits.timeout_s:g} s", attempt.number)
    except RayError as error:
        failure = Failure(type(error).__name__, _tail(attempt.log), attempt.number)
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
