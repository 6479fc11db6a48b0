"""Runs one srun inside a job and does for its tasks what the supervisor does for processes of its own.

srun alone does not fit, as measured with Slurm 22.05: it takes SIGTERM as "kill the tasks now"; its exit code is
the highest of all tasks, so that one that crashed (1) hides behind one that was stopped (75); with
--kill-on-bad-exit the first rank that ends with 75 has the others killed after KillWait, although they may still be
writing; and tasks go on when both processes of srun are killed. So: a request to stop is sent to the tasks
through the controller (or as SIGUSR1 through srun where that does not answer), srun's own words tell how each task
ended, the peers of a failed one are ended after some seconds, and what an earlier attempt has left is ended first.

Nor does 0 mean much: srun ends with it when a node is lost or a task was never started. So it counts only where
srun had nothing to complain of; and where Slurm has given the job to other nodes, the supervisor is ended too.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from cluster.job_folder import ENV_FOLDER, ENV_TOKEN, JobFolder
from cluster.processes import LAST_WORDS_S
from cluster.spec import EXIT_EMPTY, EXIT_INPUT, EXIT_REQUEUE

NAME = "castbank"  # of our steps, so that a person's own steps in the job are left alone
POLL_S, ASK_AGAIN_S = 0.1, 1.0
ANSWER_S = 20.0  # longest wait for the controller
CLEAR_S = 120.0  # longest wait for the end of what an earlier attempt left
STOPPED = 128 + signal.SIGTERM
ENDED = re.compile(r"srun: error: (?P<host>\S+): tasks? (?P<ranks>[\d,\-]+): (?P<how>.+)")
FORCED = "srun: forcing job termination"
COMPLAINT = re.compile(r"srun: (error:|Force Terminated|Job step aborted)")
SIGNALS = {signal.strsignal(number) or "": int(number) for number in signal.valid_signals()}
SIGNALS["Out Of Memory"] = int(signal.SIGKILL)


@dataclass(frozen=True)
class TaskEnd:
    """A task that did not end with 0, as srun tells. code: 128 + n where signal n ended it."""

    host: str
    rank: int
    code: int


@dataclass
class Tale:
    """What srun has told so far; filled by the thread that reads it."""

    ends: list[TaskEnd] = field(default_factory=list)
    first_failure_s: float | None = None
    complaints: int = 0
    forced: bool = False  # srun was told to kill its tasks

    def take(self, line: str) -> None:
        """Remember what a line of srun says about tasks."""
        self.complaints += COMPLAINT.match(line) is not None
        self.forced |= line.startswith(FORCED) and self.first_failure_s is None
        for end in parse(line):
            self.ends.append(end)
            if end.code != EXIT_REQUEUE and self.first_failure_s is None:
                self.first_failure_s = time.monotonic()

    def worst(self, stopping: bool) -> TaskEnd | None:
        """The end that tells most: bad input, else the first failure, else a stop; None where there is none.

        stopping: tasks that died of the request to stop had nothing to save, and count as stopped; so do those that
        Slurm killed through srun, without time to save, as scontrol requeue does.
        """
        asked = {STOPPED, 128 + signal.SIGUSR1} if stopping or self.forced else set()
        asked |= {128 + signal.SIGKILL} if self.forced else set()
        ends = [TaskEnd(e.host, e.rank, STOPPED) if e.code in asked else e for e in self.ends]
        failed = [end for end in ends if end.code not in (EXIT_REQUEUE, *asked)]
        told = sorted(failed, key=lambda end: end.code not in (EXIT_INPUT, EXIT_EMPTY))
        told = told or sorted(ends, key=lambda end: end.code != EXIT_REQUEUE)
        return told[0] if told else None


def parse(line: str) -> Iterator[TaskEnd]:
    """The ends of tasks that srun tells with a line: "srun: error: n1: tasks 0-1: Exited with exit code 1"."""
    found = ENDED.match(line)
    if found is None:
        return
    how = found["how"]
    if exited := re.match(r"Exited with exit code (\d+)", how):
        code = int(exited[1])
    else:
        code = next((128 + SIGNALS[text] for text in SIGNALS if text and how.startswith(text)), 1)
    for span in found["ranks"].split(","):
        first, _, last = span.partition("-")
        yield from (TaskEnd(found["host"], rank, code) for rank in range(int(first), int(last or first) + 1))


class Step:
    """One srun and its tasks."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        self._words, self._environment, self._job_id = words, environment, own_id(environment)
        self._tale = Tale()
        self._asked = False

    def run(self) -> int:
        """Until every task has ended; the code of the end that tells most."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, lambda *_: self._ask())
        self._leave_to_successor()
        self._clear()
        if self._asked:
            return EXIT_REQUEUE
        process = subprocess.Popen(self._words, stderr=subprocess.PIPE, text=True, errors="replace")
        assert process.stderr is not None
        reader = threading.Thread(target=self._read, args=(process.stderr,), daemon=True)
        reader.start()
        told, killed, next_s = False, False, 0.0
        while process.poll() is None:
            if self._asked and not told and time.monotonic() >= next_s:
                told, next_s = self._tell(process), time.monotonic() + ASK_AGAIN_S
            failed_s = self._tale.first_failure_s
            if not killed and failed_s is not None and time.monotonic() - failed_s > LAST_WORDS_S:
                process.terminate()  # srun kills its tasks
                killed = True
            time.sleep(POLL_S)
        reader.join(ANSWER_S)
        code = self._verdict(process.returncode)
        if code not in (0, EXIT_REQUEUE, STOPPED):
            self._leave_to_successor()
        return code

    def _verdict(self, code: int) -> int:
        worst = self._tale.worst(self._asked)
        if self._tale.forced and (worst is None or worst.code == STOPPED):
            return EXIT_REQUEUE
        if worst is None:
            return 128 - code if code < 0 else code or int(self._tale.complaints > 0)
        if worst.code not in (EXIT_REQUEUE, STOPPED):
            self._note(worst)
        return worst.code

    def _note(self, end: TaskEnd) -> None:
        """Leave which rank failed first; all that the supervisor sees is one process."""
        if folder := self._environment.get(ENV_FOLDER):
            token = self._environment.get(ENV_TOKEN, "")
            JobFolder(Path(folder)).note_failed_rank(end.rank, end.host, token)

    def _ask(self) -> None:
        self._asked = True

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            sys.stderr.write(line)
            sys.stderr.flush()
            self._tale.take(line)

    def _tell(self, process: subprocess.Popen[str]) -> bool:
        """SIGTERM to every task; False where none is there yet. The job is named and not the step: a step that is
        sent SIGTERM is ended by Slurm after KillWait, whether or not it has saved."""
        try:
            steps = self._steps()
            if steps:
                _answer("scancel", "--signal=TERM", self._job_id)
        except (OSError, subprocess.SubprocessError):
            process.send_signal(signal.SIGUSR1)  # handed on by srun itself, as it came
            return True
        return bool(steps)

    def _clear(self) -> None:
        """End what an earlier attempt has left in this job: its step would hold the nodes, its ranks the GPUs."""
        until_s = time.monotonic() + CLEAR_S
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            while (steps := self._steps()) and time.monotonic() < until_s and not self._asked:
                for step in steps:
                    with contextlib.suppress(subprocess.CalledProcessError):  # it ended meanwhile
                        _answer("scancel", step)
                time.sleep(POLL_S)

    def _leave_to_successor(self) -> None:
        """Where Slurm has requeued the job, as when this node was thought lost, end the supervisor before it writes
        an outcome, or starts a step: that would run in the successor's nodes, which have the same job id."""
        token = self._environment.get(ENV_TOKEN, "")
        folder = self._environment.get(ENV_FOLDER)
        fenced = folder is not None and JobFolder(Path(folder)).holder() not in ("", token)
        if fenced or self._restarts() not in ("", self._environment.get("SLURM_RESTART_COUNT", "0")):
            sys.stderr.write("castbank: this job was started elsewhere; its processes here end\n")
            os.kill(os.getppid(), signal.SIGKILL)
            sys.exit(STOPPED)

    def _restarts(self) -> str:
        """How often Slurm has started the job again; empty where it does not say."""
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            words = ("--noheader", "--states=all", f"--jobs={self._job_id}", "--Format=RestartCnt")
            return _answer("squeue", *words).strip()
        return ""

    def _steps(self) -> list[str]:
        """Ids of our steps in this job that have not ended."""
        listed = _answer("squeue", "--steps", "--noheader", f"--jobs={self._job_id}", "--format=%i %j")
        rows = [line.split(maxsplit=1) for line in listed.splitlines()]
        return [row[0] for row in rows if len(row) == 2 and row[1].strip() == NAME]


def own_id(environment: Mapping[str, str]) -> str:
    """This job for Slurm's commands; SLURM_JOB_ID of an array's element may mean the whole array to them."""
    if "SLURM_ARRAY_TASK_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment.get("SLURM_JOB_ID", "")


def _answer(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=ANSWER_S)
    return done.stdout


if __name__ == "__main__":
    sys.exit(Step(sys.argv[1:], os.environ).run())
