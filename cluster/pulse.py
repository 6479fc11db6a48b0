"""A rank's pulse: a thread that writes its heartbeat, and sees what the rank's main thread may be too stuck to see.

That is: that another attempt has taken the job over, that it is to stop, that the main thread has not moved for too
long, and that somebody asks where in the code it is.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster import stacks
from cluster.heartbeats import BEAT_S, DONE, Heartbeat, path_of
from cluster.job_folder import JobFolder

EXIT_FENCED = EXIT_STUCK = 1
CHECK_S = 1.0  # between two looks at who may write, for ranks that write nothing that others read
LAST_WORD_S = 30.0  # how long a rank that ends waits for its last heartbeat to be on a slow disk


class Fence:
    """Whether an attempt may still write what a job leaves."""

    def __init__(self, job: JobFolder | None, token: str) -> None:
        """Without a job or a token there is no fence."""
        self._job, self._token = job, token

    def check(self) -> None:
        """Return, unless another attempt has taken over: then the process ends here, and writes nothing more."""
        if self._job is None or not self._token:
            return
        if holder := self._job.overtaken_by(self._token):
            _say(
                f"attempt {self._token} of job {str(self._job.folder)!r} is over: {holder} has taken it over. This "
                "process ends now and writes nothing more"
            )
            os._exit(EXIT_FENCED)


@dataclass(frozen=True)
class Care:
    """What is watched over a rank.

    Attributes:
        base: ``FOLDER/job`` of a job, or the folder of a run outside of one.
        fence: of the attempt.
        stop_files: which ask for a stop as SIGTERM does; the first rank looks for them.
        hang_s: how long the main thread may stay at one step and phase.
        phases: in which ``hang_s`` counts; none: in all.
    """

    base: Path
    fence: Fence
    stop_files: tuple[Path, ...]
    hang_s: float
    phases: Collection[str] = ()


class Pulse:
    """The heartbeat of one rank."""

    def __init__(self, rank: int, world: int, token: str, care: Care) -> None:
        self._rank, self._world, self._token, self._care = rank, world, token, care
        self._host, self._pid = socket.gethostname(), os.getpid()
        self._doing = ("starting", 0, time.time(), time.monotonic())  # replaced whole: two threads read it
        self._checked_s = 0.0
        self._answered = ""
        self._end = threading.Event()
        self._changed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    @property
    def step(self) -> int:
        """Updates done, as last told."""
        return self._doing[1]

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def beat(self, phase: str, step: int) -> None:
        """Told by the main thread what it is about to do, and how many updates are done; see ``Fence.check``."""
        before, self._doing = self._doing[0], (phase, step, time.time(), time.monotonic())
        now_s = time.monotonic()
        if self._rank == 0 or phase != before or now_s - self._checked_s > CHECK_S:
            self._checked_s = now_s
            self._care.fence.check()
        if phase != before:
            self._changed.set()

    def stop(self) -> None:
        """Say the last word, that of the last phase, and end."""
        self._end.set()
        self._changed.set()
        self._thread.join(LAST_WORD_S)

    def _run(self) -> None:
        asked = False
        while True:
            self._care.fence.check()
            self._write()
            if self._end.is_set():
                return
            if self._rank == 0 and not asked and any(path.exists() for path in self._care.stop_files):
                asked = True
                os.kill(self._pid, signal.SIGTERM)
            self._answered = stacks.answer(self._care.base, self._rank, self._answered)
            self._look_at_main_thread()
            self._changed.wait(BEAT_S)
            self._changed.clear()

    def _write(self) -> None:
        """Never an error: a full disk must not end a training, and a missing heartbeat is seen from outside."""
        phase, step, at_s, _ = self._doing
        heartbeat = Heartbeat(self._rank, self._host, self._pid, self._token, phase, step, at_s, time.time())
        path = path_of(self._care.base, self._rank)
        aside = path.with_name(f".{path.name}")
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps(asdict(heartbeat)), encoding="utf-8")
            aside.replace(path)

    def _look_at_main_thread(self) -> None:
        phase, step, _, since_s = self._doing
        hang_s = self._care.hang_s
        if phase == DONE or (self._care.phases and phase not in self._care.phases):
            return
        if time.monotonic() - since_s > hang_s:
            _say(
                f"rank {self._rank} of {self._world} has not moved for {hang_s:g} s: {phase!r} at step {step}. It "
                "ends now; the stacks of all its threads:"
            )
            faulthandler.dump_traceback(file=2, all_threads=True)
            os._exit(EXIT_STUCK)


def _say(text: str) -> None:
    """One line, past whatever may be locked: the process ends right after it."""
    with contextlib.suppress(OSError):
        os.write(2, f"castbank: {text}\n".encode())
