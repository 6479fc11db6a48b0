"""Runs a function over many items on Ray so that an item may crash its process without harm.

A decoder that segfaults, a model that runs out of memory, a video that hangs: each costs one worker process and
one attempt. Attempts are counted here and not by Ray, because Ray retries a crash but not an exception, cannot
time a task out, and does not say what the dead process wrote to its stderr. Items are read as they are needed, so
that the driver's memory does not depend on how many there are.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from data_prep.running import ray_session
from data_prep.running.attempts import (
    BATCH_S,
    Done,
    Failure,
    Lost,
    Task,
    Turn,
    Unreached,
    ended,
    given_up,
    run_batch,
)
from data_prep.running.ray_session import RaySession

__all__ = ["Failure", "Limits", "Task", "Workers"]

T = TypeVar("T")
R = TypeVar("R")

CALLS_PER_WORKER = (
    64  # batches, then its process is replaced, so that what decoders leak stays bounded; a start costs 2 s
)
MOST_TOGETHER = 256  # items in a batch, however short they are
POLL_S = 0.5  # how late a timeout may be noticed
MEMORY_STEP = 512 * 1024**2  # demands are rounded up to it: Ray keeps workers ready for each different one
MAX_RESTARTS = 3  # of a Ray of our own whose node dies again before anything is done


@dataclass(frozen=True)
class Limits:
    """max_attempts: per item, crashes and exceptions alike; timeout_s: per attempt."""

    max_attempts: int
    timeout_s: float


@dataclass
class _Batch(Generic[T]):
    """What one call in a worker is given. started_s: when its first log was seen, from which its time counts."""

    turns: list[Turn[T]]
    logs: list[Path]
    timeout_s: float
    started_s: float | None = None

    def is_overdue(self, now_s: float) -> bool:
        """Whether it has had its time; what waits in Ray's queue, as where a node is gone, has not begun to."""
        if self.started_s is None and any(log.exists() for log in self.logs):
            self.started_s = now_s
        return self.started_s is not None and now_s - self.started_s > self.timeout_s


class _Queue(Generic[T]):
    """Tasks that wait for a worker: those that come again, alone, then as many together as take a second."""

    def __init__(self, tasks: Iterable[Task[T]]) -> None:
        self._tasks = iter(tasks)
        self._alone: deque[Turn[T]] = deque()
        self._next: deque[Turn[T]] = deque()
        self._num_done = 0
        self._busy_s = 0.0

    def __bool__(self) -> bool:
        if not self._alone and not self._next:
            self._next.extend(Turn(task) for task in _some(self._tasks, 1))
        return bool(self._alone or self._next)

    def take(self) -> list[Turn[T]]:
        """The turns of the next batch; there are some."""
        if self._alone:
            return [self._alone.popleft()]
        most = 1
        if self._num_done:
            mean_s = max(self._busy_s / self._num_done, BATCH_S / MOST_TOGETHER)
            most = max(1, int(BATCH_S / mean_s))
        self._next.extend(Turn(task) for task in _some(self._tasks, most - len(self._next)))
        return [self._next.popleft() for _ in range(min(most, len(self._next)))]

    def learn(self, busy_s: float) -> None:
        """An item took so long."""
        self._num_done += 1
        self._busy_s += busy_s

    def put_back(self, turn: Turn[T], *, alone: bool) -> None:
        """A turn that is still to be made."""
        (self._alone if alone else self._next).append(turn)


class Workers:
    """Ray, as a context manager: the caller's if it has one, else the one that RAY_ADDRESS names, else our own.

    num_workers: tasks at once; 0 is one per core, of this machine or of the cluster. A Ray of our own starts at the
    first use, keeps its files in a new folder under the system's temporary folder, and leaves no process and no
    file behind; when its node dies, it is started again and costs what was being worked on.
    """

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers or len(os.sched_getaffinity(0))
        self._busy_s = 0.0  # of items that have ended
        self._crew: _Crew[Any, Any] | None = None
        self._one_per_core = num_workers == 0
        self._session = RaySession(self.num_workers)

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.end()

    def run(
        self,
        work: Callable[[T], R],
        tasks: Iterable[Task[T]],
        limits: Limits,
        logs: Path,
        on_gpu: bool = False,
    ) -> Iterator[tuple[Task[T], R | Failure]]:
        """Yield every task with its result as it comes, or with the failure that used up its attempts.

        ``logs`` is a folder for what running attempts write to stderr; ``on_gpu`` gives each task a GPU of its own
        where Ray has any, and runs as many at once as there are. An InputError and a full disk are not the
        item's fault and are raised.
        """
        queue = _Queue(tasks)
        if not queue:
            return
        self._start()
        self._crew = crew = _Crew(work, limits, logs, on_gpu)
        num_restarts = 0
        while queue or crew.running:
            while queue and len(crew.running) < (crew.num_gpus or self.num_workers):
                crew.start(queue.take())
            for turn, end in crew.ended():
                num_restarts = 0 if isinstance(end, Done) else num_restarts
                self._learn(end, crew, queue)
                result = end.result if isinstance(end, Done) else end
                again = turn.after(result, limits.max_attempts)
                if again is None:
                    yield turn.task, given_up(turn, result)
                else:
                    queue.put_back(again, alone=result != Unreached())
            if crew.is_cut_off:
                num_restarts += 1
                if num_restarts > MAX_RESTARTS or not self._session.restart():
                    crew.raise_why()
                self._crew = crew = _Crew(work, limits, logs, on_gpu)

    def _learn(self, end: object, crew: _Crew[T, R], queue: _Queue[T]) -> None:
        """How long items take, and, where a node is gone, what there is without it."""
        if isinstance(end, Done):
            self._busy_s += end.busy_s
            queue.learn(end.busy_s)
        elif isinstance(end, Lost) and not crew.is_cut_off:
            crew.look_around()
            self._count_workers()

    def worked_s(self) -> tuple[float, int]:
        """Seconds that workers have been at items, those under way included, and how many workers there are."""
        under_way_s = self._crew.under_way_s() if self._crew else 0.0
        return self._busy_s + under_way_s, self.num_workers

    def _start(self) -> None:
        self._session.start()
        self._count_workers()

    def _count_workers(self) -> None:
        """As many as there are cores now, where nobody has said how many; more would only wait in Ray's queue."""
        if self._one_per_core:
            self.num_workers = ray_session.num_cpus()


class _Crew(Generic[T, R]):
    """What runs in Ray at the moment, all of it of one function."""

    def __init__(self, work: Callable[[T], R], limits: Limits, logs: Path, on_gpu: bool) -> None:
        import ray

        self.num_gpus = ray_session.num_gpus() if on_gpu else 0
        self.running: dict[Any, _Batch[T]] = {}
        self._remote = ray.remote(
            num_cpus=1, num_gpus=min(self.num_gpus, 1), max_retries=0, max_calls=CALLS_PER_WORKER
        )(run_batch)
        self._work, self._limits, self._logs = work, limits, logs
        self._cut_off: Exception | None = None
        self.look_around()

    @property
    def is_cut_off(self) -> bool:
        """Whether the node that this process talks to Ray through has died."""
        return self._cut_off is not None

    def raise_why(self) -> None:
        """Raise what came when it was cut off."""
        assert self._cut_off is not None
        raise self._cut_off

    def look_around(self) -> None:
        """See how large the nodes are that there are now."""
        self._most_memory = ray_session.largest_memory_bytes()

    def under_way_s(self) -> float:
        """Seconds since the batches that run were seen to have begun."""
        now_s = time.monotonic()
        begun_s = [batch.started_s for batch in self.running.values() if batch.started_s is not None]
        return sum(now_s - each_s for each_s in begun_s)

    def start(self, turns: list[Turn[T]]) -> None:
        """Give a batch to Ray, which starts it where cores and memory are free."""
        logs = [turn.log(self._logs) for turn in turns]
        each_s = max(turn.task.timeout_s or self._limits.timeout_s for turn in turns)
        batch = _Batch(turns, logs, each_s + BATCH_S * (len(turns) > 1))
        items = [(turn.task.item, log) for turn, log in zip(turns, logs, strict=True)]
        needed = max(self._memory_bytes(turn) for turn in turns)
        remote = self._remote.options(memory=needed) if needed else self._remote
        self.running[remote.remote(self._work, items)] = batch

    def _memory_bytes(self, turn: Turn[T]) -> int:
        """What the attempt may need; after a crash twice as much, for it may have been for want of memory."""
        wanted = turn.task.memory_bytes << (turn.number - 1)
        return min(-(-wanted // MEMORY_STEP) * MEMORY_STEP, self._most_memory)

    def ended(self) -> Iterator[tuple[Turn[T], Any]]:
        """Every turn that has ended, and how; waits a moment for the first. When this process was cut off from Ray,
        all have."""
        from ray.exceptions import LocalRayletDiedError

        for reference in self._finished():
            batch = self.running.pop(reference)
            try:
                ends = ended(reference, batch.logs, batch.timeout_s)
            except LocalRayletDiedError as error:
                self._cut_off = error
                yield from self._lost(batch)
                break
            yield from zip(batch.turns, ends, strict=True)
        if self.is_cut_off:
            for batch in self.running.values():
                yield from self._lost(batch)
            self.running = {}

    def _lost(self, batch: _Batch[T]) -> Iterator[tuple[Turn[T], Lost | Unreached]]:
        """The turns of a batch on this process's own node; only the one that was begun has lost an attempt."""
        for turn, log in zip(batch.turns, batch.logs, strict=True):
            begun = log.exists()
            log.unlink(missing_ok=True)
            yield turn, Lost(str(self._cut_off).partition("\n")[0]) if begun else Unreached(beside_crash=True)

    def _finished(self) -> list[Any]:
        """Batches that are done or overdue; the overdue are killed with their worker."""
        import ray

        done, others = ray.wait(list(self.running), num_returns=1, timeout=POLL_S)
        now_s = time.monotonic()
        overdue = [reference for reference in others if self.running[reference].is_overdue(now_s)]
        for reference in overdue:
            ray.cancel(reference, force=True)
        return [*done, *overdue]


def _some(tasks: Iterator[Task[T]], count: int) -> Iterator[Task[T]]:
    for _ in range(count):
        try:
            yield next(tasks)
        except StopIteration:
            return
