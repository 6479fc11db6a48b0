"""The processes of one attempt on this host: started together, ended together, none left behind.

Only the standard library is used: this runs beside the job, with the first Python that is there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cluster.job_folder import JobFolder
from cluster.spec import EXIT_EMPTY, EXIT_INPUT, EXIT_REQUEUE, JobSpec

PR_SET_PDEATHSIG = 1
LAST_WORDS_S = (
    5.0  # from one process's failure to the kill of its peers, which notice by themselves within 1 s
)
KILL_S = 30.0  # for killed processes to be gone; one that waits for a file server or a device may never be


@dataclass(frozen=True)
class Child:
    """One process: its words, what is added to the environment, and the file that takes its output."""

    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """How all processes of an attempt together ended: the code of the one that tells most, and its place."""

    code: int  # of the process; 128 + n where signal n killed it
    index: int


def one_per_part(spec: JobSpec, place: JobFolder, environment: Mapping[str, str]) -> list[Child]:
    """The processes of an array whose parts all run on this host."""
    parts = range(1, spec.array + 1)
    return [Child(spec.part_command(part), place.rank_log(part - 1), environment) for part in parts]


class Group:
    """Running processes of one attempt."""

    def __init__(self, children: Sequence[Child], workdir: Path) -> None:
        """Start all; where one cannot be started those before it are killed.

        Raises:
            OSError: a program or the working directory is not there.
        """
        self._running: list[subprocess.Popen[bytes]] = []
        self._first_failure_s: float | None = None
        self._failures: list[int] = []  # places, in the order they were seen
        self._asked = False  # to end
        self._stuck: set[int] = set()  # places of processes that outlived their kill, and count as killed
        try:
            for child in children:
                self._running.append(_start(child, workdir))
        except BaseException:
            self.kill()
            raise

    def signal(self, number: int) -> None:
        """Send a signal to every process that has not ended."""
        self._asked = self._asked or number == signal.SIGTERM
        for process in self._running:
            if process.poll() is None:
                process.send_signal(number)

    def kill(self) -> None:
        """End every process now, with whatever it has started in its own process group. One that the kernel cannot
        end within ``KILL_S`` is left behind; the attempt's fence keeps it from writing."""
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        until_s = time.monotonic() + KILL_S
        for index, process in enumerate(self._running):
            if index in self._stuck:
                continue
            try:
                process.wait(max(until_s - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                self._stuck.add(index)
                _say(f"process {process.pid} is still there {KILL_S:g} s after its kill, and is left behind")

    def ended(self) -> Ended | None:
        """How the attempt ended, once every process has; peers of a failed one are killed after some seconds."""
        codes = [self._code(index) for index in range(len(self._running))]
        for index, code in enumerate(codes):
            if (
                code is not None
                and index not in self._failures
                and self._as_asked(code) not in (0, EXIT_REQUEUE)
            ):
                self._failures.append(index)
                self._first_failure_s = self._first_failure_s or time.monotonic()
        alive = any(code is None for code in codes)
        if alive and self._first_failure_s and time.monotonic() - self._first_failure_s > LAST_WORDS_S:
            self.kill()
            alive = False
        if alive:
            return None
        self.kill()  # what ended processes may have left in their groups
        last = [self._code(index) for index in range(len(self._running))]
        return self._verdict([self._as_asked(code) for code in last if code is not None])

    def _code(self, index: int) -> int | None:
        """Of a process that has ended, or must be taken to have; None while it runs."""
        code = self._running[index].poll()
        return -signal.SIGKILL if code is None and index in self._stuck else code

    def _as_asked(self, code: int) -> int:
        """One whose Python had ended already when it was asked to end dies of the signal: no failure."""
        return EXIT_REQUEUE if self._asked and code == -signal.SIGTERM else code

    def _verdict(self, codes: list[int]) -> Ended:
        """Bad input says most, then the signal that killed a process first, then the first failure."""
        told = sorted(self._failures, key=lambda k: (codes[k] not in (EXIT_INPUT, EXIT_EMPTY), codes[k] > 0))
        if told:
            return Ended(_as_shell(codes[told[0]]), told[0])
        requeue = [k for k, code in enumerate(codes) if code == EXIT_REQUEUE]
        return Ended(EXIT_REQUEUE, requeue[0]) if requeue else Ended(0, 0)


def _start(child: Child, workdir: Path) -> subprocess.Popen[bytes]:
    child.log.parent.mkdir(parents=True, exist_ok=True)
    with child.log.open("ab") as log:
        return subprocess.Popen(
            child.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=workdir,
            env={**os.environ, **child.environment},
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509  (this process has one thread)
        )


def _die_with_parent() -> None:
    """A supervisor that is killed takes its processes along (Linux; elsewhere they are fenced off later)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _say(text: str) -> None:
    sys.stderr.write(f"castbank: {text}\n")
    sys.stderr.flush()


def _as_shell(code: int) -> int:
    return 128 - code if code < 0 else code
