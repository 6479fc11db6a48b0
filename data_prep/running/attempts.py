"""Attempts at items: what one is, how a worker makes it, and what its end says of the item.

Short items travel together, so that scheduling one costs microseconds and not milliseconds. A worker that dies
takes its whole batch along; the item that it was at is known by its log, which it opens before and removes after.
That one is charged with the attempt, the others come again, alone.
"""

from __future__ import annotations

import errno
import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from data_prep.records import InputError

T = TypeVar("T")
R = TypeVar("R")

BATCH_S = (
    1.0  # items are handed out together while they take less; also what a batch may take from a neighbour
)
STDERR_TAIL = 2000  # characters kept of what a failed attempt wrote
GET_S = 10.0  # for the result of a task that has ended
MAX_LOST = 5  # attempts of one item that may end with a node's death before the item is taken for its cause


@dataclass(frozen=True)
class Failure:
    """An item that failed ``attempts`` times; error_class and detail are those of the last."""

    error_class: str
    detail: str
    attempts: int


@dataclass(frozen=True)
class Task(Generic[T]):
    """An item under its name, which is a file name too. memory_bytes: what a worker needs for it at most, 0 where
    that is little; timeout_s: of one attempt, 0 where the limit for all holds."""

    name: str
    item: T
    memory_bytes: int = 0
    timeout_s: float = 0.0


@dataclass(frozen=True)
class Turn(Generic[T]):
    """A task's next attempt. lost: earlier ones that a node took with it; they are not counted in ``number``."""

    task: Task[T]
    number: int = 1
    lost: int = 0

    def log(self, folder: Path) -> Path:
        """The file for what this attempt writes to stderr; it is there while the attempt is under way."""
        return folder / f"{self.task.name}.{self.number + self.lost}.stderr"

    def after(self, result: object, max_attempts: int) -> Turn[T] | None:
        """The task's next attempt after this one ended so; None where the result stands."""
        if isinstance(result, Unreached):
            return self
        if isinstance(result, Lost) and self.lost + 1 < MAX_LOST:
            return replace(self, lost=self.lost + 1)
        if isinstance(result, Failure) and self.number < max_attempts:
            return replace(self, number=self.number + 1)
        return None


@dataclass(frozen=True)
class Lost:
    """The attempt's node died, or its result was on one."""

    detail: str


@dataclass(frozen=True)
class Unreached:
    """The attempt was not made, or, ``beside_crash``, its result may have gone with a neighbour's."""

    beside_crash: bool = False


@dataclass(frozen=True)
class Done:
    """What came of one item in a worker: a result or a Failure, and how long that took."""

    result: Any
    busy_s: float


def run_batch(work: Callable[[T], R], items: Sequence[tuple[T, Path]]) -> list[Done]:
    """In the worker: one item after the other until BATCH_S have passed; those that are left are for others.

    An InputError and a full disk are not the item's fault and are raised.
    """
    folder = items[0][1].parent
    if not folder.is_dir():
        raise InputError(
            f"folder {folder} is not there on {os.uname().nodename}, a node of the Ray cluster; output must be a "
            "folder that all of its nodes see"
        )
    done: list[Done] = []
    start_s = time.monotonic()
    for item, log in items:
        if done and time.monotonic() - start_s > BATCH_S:
            break
        begun_s = time.monotonic()
        result = _run_logged(work, item, log)
        done.append(Done(result, time.monotonic() - begun_s))
    return done


def _run_logged(work: Callable[[T], R], item: T, log: Path) -> R | Failure:
    """Run with stderr, also that of native code, in a file that outlives the process."""
    saved = os.dup(2)
    with log.open("wb") as stream:
        os.dup2(stream.fileno(), 2)
        try:
            return work(item)
        except Exception as error:
            if isinstance(error, InputError) or disk_is_full(error):
                raise
            return Failure(type(error).__name__, traceback.format_exc()[-STDERR_TAIL:].rstrip(), 1)
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            log.unlink(missing_ok=True)


def ended(reference: Any, logs: Sequence[Path], timeout_s: float) -> list[Done | Failure | Lost | Unreached]:
    """How each item of a batch ended, in order; a ``Failure`` that is not in a ``Done`` took its worker along.

    Raises:
        InputError, OSError: as ``run_batch`` does.
        LocalRayletDiedError: this process's own node died; nothing can be had from Ray any more.
    """
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

    end: Failure | Lost
    try:
        done = ray.get(reference, timeout=GET_S)
        return [*done, *(Unreached() for _ in logs[len(done) :])]
    except LocalRayletDiedError:
        raise
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, BaseException) else error
        if isinstance(cause, InputError) or disk_is_full(cause):
            raise cause from error
        end = Failure(type(cause).__name__, str(error).partition("\n")[2].rstrip()[-STDERR_TAIL:], 1)
    except (TaskCancelledError, GetTimeoutError):
        end = Failure("TimeoutError", f"more than {timeout_s:g} s", 1)
    except (NodeDiedError, ObjectLostError) as error:
        end = Lost(str(error).partition("\n")[0])
    except RayError as error:
        end = Failure(type(error).__name__, "", 1)
    return _blamed(end, logs)


def _blamed(end: Failure | Lost, logs: Sequence[Path]) -> list[Done | Failure | Lost | Unreached]:
    """The end of a batch laid to the item that the worker was at; to the first where it was at none."""
    at = next((place for place, log in enumerate(logs) if log.exists()), 0)
    if isinstance(end, Failure) and not end.detail:
        end = replace(end, detail=tail(logs[at]))
    for log in logs:
        log.unlink(missing_ok=True)
    return [end if place == at else Unreached(beside_crash=True) for place in range(len(logs))]


def given_up(turn: Turn[T], end: Any) -> Any:
    """What to say of a task that is not tried again: its result, or the failure of all its attempts."""
    if isinstance(end, Lost):
        return Failure(
            "NodeDiedError", f"{turn.lost + 1} nodes died under it; {end.detail}"[-STDERR_TAIL:], turn.number
        )
    return replace(end, attempts=turn.number) if isinstance(end, Failure) else end


def disk_is_full(error: BaseException) -> bool:
    """Whether that is why."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def tail(log: Path) -> str:
    """The end of what a dead process wrote; from the fatal error on where Python's fault handler named one,
    without its list of every loaded module."""
    text = log.read_bytes().decode(errors="replace") if log.is_file() else ""
    text = "\n".join(line for line in text.splitlines() if not line.startswith("Extension modules:")).strip()
    before, fatal, after = text.rpartition("Fatal Python error")
    if fatal:
        text = (before[-STDERR_TAIL // 2 :] + fatal + after)[:STDERR_TAIL]
    return text[-STDERR_TAIL:] or "the process died and wrote nothing"
