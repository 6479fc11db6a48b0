"""What one process of a training knows of itself: its place, where its peers are met, and whom it answers to."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from data_prep.records import InputError

EXIT_INPUT, EXIT_REQUEUE = (
    2,
    75,
)  # 75 is EX_TEMPFAIL: stopped on request after a checkpoint, to go on from there
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
POLL_S = 0.05

Phase = Literal["starting", "joining", "train", "checkpoint", "export", "done"]
Beat = Callable[[Phase, int], None]
"""Told by a rank's main thread what it is about to do, and how many updates are done. It does not come back where
the rank may write nothing more."""


class LeaveError(RuntimeError):
    """A rank cannot go on, for a reason that is no fault of its input and may pass: its message says it all."""


class Stop:
    """A request to stop. Free of locks, as signal handlers make it between any two instructions of a waiter."""

    def __init__(self) -> None:
        self.asked_s: float | None = None  # when, by time.monotonic()

    def set(self) -> None:
        """Ask; only the first time counts."""
        if self.asked_s is None:
            self.asked_s = time.monotonic()

    def is_set(self) -> bool:
        """Whether somebody has asked."""
        return self.asked_s is not None

    def wait(self, seconds: float) -> bool:
        """Return when somebody has asked, or after some time; whether somebody has."""
        until_s = time.monotonic() + seconds
        while not self.is_set() and (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(POLL_S, left_s))
        return self.is_set()


@dataclass(frozen=True)
class Address:
    """Where the ranks meet: there the first one serves them, at any free port where ``port`` is 0.

    ``served``: empty, or that the launcher's own server is there, and the prefix under which this attempt keeps its
    keys on it.
    """

    host: str = "127.0.0.1"
    port: int = 0
    served: str = ""


def no_beat(phase: Phase, step: int) -> None:
    """Nobody listens."""


def always_allowed() -> None:
    """Nobody forbids."""


@dataclass(frozen=True)
class Rank:
    """One process of a training: its place among ``world`` processes, how it reports, and whether to stop.

    ``report`` sends any picklable message to whoever launched; ``stop`` is set by SIGTERM or SIGUSR1; ``allowed``,
    for any thread, does not come back where the rank may write nothing more.
    """

    index: int
    world: int
    local: int
    report: Callable[[Any], None]
    address: Address = field(default_factory=Address)
    stop: Stop = field(default_factory=Stop)
    beat: Beat = no_beat
    allowed: Callable[[], None] = always_allowed

    def environment(self) -> dict[str, str]:
        """The rank as torchrun's variables, which DeepSpeed reads."""
        numbers = {"RANK": self.index, "LOCAL_RANK": self.local, "WORLD_SIZE": self.world}
        where = {"MASTER_ADDR": self.address.host, "MASTER_PORT": self.address.port}
        return {name: str(value) for name, value in (numbers | where).items()}


def check_gpu(rank: Rank, num_gpus: int) -> None:
    """Raise InputError where a rank's machine shows it fewer GPUs than it has ranks."""
    if rank.local >= num_gpus:
        raise InputError(
            f"engine.num_processes: process {rank.local + 1} of this machine has no GPU of its own, it sees "
            f"{num_gpus}; start as many as there are (engine.accumulation keeps the batch)"
        )


def stop_on_signals(stop: Stop) -> None:
    """From now on the stop signals make a request, also those that came while they were blocked."""
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: stop.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


@contextmanager
def stopped_by_signals(stop: Stop) -> Iterator[None]:
    """The same within a block."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    stop_on_signals(stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
