"""Runs a job where it was put: attempt after attempt, as its policy says, until it has ended one way or the other.

Every place starts ``python -m cluster.supervisor FOLDER``. It starts the processes of an attempt, passes a request
to stop on to them, watches their heartbeats, and notes what came of it; schedulers only have to keep it alive.
Exit code: the job's own; 75 where it was asked to stop and is to go on, 130 where its owner cancelled it.
"""

from __future__ import annotations

import os
import secrets as random
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cluster import heartbeats
from cluster.job_folder import ENV_FOLDER, ENV_TOKEN, Attempt, JobFolder
from cluster.launchers import starter
from cluster.outcomes import close_cut_off, still_missing
from cluster.policy import Verdict, judge
from cluster.processes import Child, Group
from cluster.secret_values import secret_values
from cluster.spec import EXIT_INPUT, EXIT_REQUEUE, JobError, State
from cluster.watch import Seen, TakenOverError, watch

POLL_S = 0.2
UNANSWERED_S = (
    60.0  # how long a file system may be away before this one ends without knowing whose the job is
)
EXIT_TAKEN_OVER = 1
# As after Ctrl-C; not 75: a script that puts the job back must not, even where it has been requeued meanwhile.
EXIT_CANCELLED = 130
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
SCHEDULER_IDS = ("SLURM_JOB_ID", "RAY_JOB_SUBMISSION_ID")
STATES: dict[str, State] = {"done": "succeeded", "fail": "failed", "requeue": "preempted"}


class Supervisor:
    """One job on its way to an end."""

    def __init__(self, folder: Path) -> None:
        self._place = JobFolder(folder)
        self._spec = self._place.spec()
        self._token = self._place.holder()  # of the last attempt that is this one's, or was there before it
        self._asked_s: float | None = None  # when a signal or the job's owner asked to stop

    def run(self) -> int:
        """Attempt until there is nothing more to attempt; returns the exit code of this process."""
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: self._ask())
        outcome = self._place.outcome()
        if (
            outcome is not None and outcome.state == "succeeded"
        ):  # a scheduler may start what is done once more
            self._say("has succeeded already")
            return 0
        try:
            self._check_held()
            self._place.forget_outcome()
            return self._to_its_end()
        except TakenOverError as error:  # the other writes now: this one leaves no word
            self._say(str(error))
            return EXIT_TAKEN_OVER

    def _to_its_end(self) -> int:
        try:
            if not self._wait_for_others():
                return self._end(Verdict("requeue", 0, "asked to stop before it began"), EXIT_REQUEUE)
            self._check_held()
            lost = close_cut_off(self._place)
            if lost is not None and (counted := self._place.counted()):
                self._say(f"attempt {lost.number} {lost.kind}: {lost.reason}")
                if (verdict := self._judged(counted)).next == "fail":
                    return self._end(verdict, 1)
            return self._attempts()
        except JobError as error:
            return self._end(Verdict("fail", 0, str(error)), 1)

    def _attempts(self) -> int:
        while True:
            attempt = self._attempt()
            verdict = self._judged(self._place.counted())
            self._say(f"attempt {attempt.number} {attempt.kind}: {verdict.reason or 'done'}")
            if verdict.next == "requeue":
                return self._end(verdict, EXIT_REQUEUE)
            if verdict.next != "again":
                return self._end(verdict, attempt.exit_code or 0)
            if self._asked_within(verdict.wait_s):
                return self._end(Verdict("requeue", 0, "asked to stop between attempts"), EXIT_REQUEUE)

    def _wait_for_others(self) -> bool:
        """Until the jobs that this one comes after have ended; False where a request to stop came first."""
        while still_missing(self._spec.after):
            if self._asked_within(POLL_S * 5):
                return False
        return True

    def _judged(self, counted: Sequence[Attempt]) -> Verdict:
        return judge(counted, self._spec.retry, with_steps=self._spec.ranks)

    def _check_held(self) -> None:
        """Raise TakenOverError where another supervisor has begun an attempt while this one waited; a file system
        that does not answer is asked for ``UNANSWERED_S``."""
        until_s = time.monotonic() + UNANSWERED_S
        while True:
            try:
                holder = self._place.holder()
                break
            except OSError:
                if time.monotonic() > until_s:
                    raise
                time.sleep(POLL_S)
        if holder != self._token:
            raise TakenOverError(f"attempt {holder} has taken the job over; this supervisor ends")

    def _asked_within(self, wait_s: float) -> bool:
        """Whether a request to stop has come, now or within some seconds."""
        until_s = time.monotonic() + wait_s
        while not self._stop_wanted() and time.monotonic() < until_s:
            time.sleep(POLL_S)
        return self._asked_s is not None

    def _stop_wanted(self) -> bool:
        if self._asked_s is None and (self._place.stop.exists() or self._place.cancelled.exists()):
            self._ask()
        return self._asked_s is not None

    def _attempt(self) -> Attempt:
        self._check_held()
        place, number = self._place, len(self._place.attempts()) + 1
        attempt = Attempt(number, random.token_hex(8), os.uname().nodename, _scheduler_id(), time.time())
        place.note_attempt(attempt)
        place.claim(attempt.token)
        self._token = attempt.token
        heartbeats.forget(place.heartbeats)
        seen = self._seen(attempt)
        attempt = replace(
            attempt,
            end_s=time.time(),
            exit_code=seen.code,
            kind=seen.kind,
            reason=seen.reason,
            step=heartbeats.last_step(place.heartbeats, attempt.token),
            stopped_s=time.monotonic() - self._asked_s if self._asked_s is not None else None,
            failed_rank=seen.rank,
            failed_host=seen.host,
        )
        place.note_attempt(attempt)
        return attempt

    def _seen(self, attempt: Attempt) -> Seen:
        """Start the processes of an attempt and watch them to their end."""
        spec = self._spec
        try:
            children = [
                self._with_environment(child, attempt) for child in starter(spec.place)(spec, attempt)
            ]
            group = Group(children, spec.workdir)
        except (OSError, JobError) as error:
            return Seen(EXIT_INPUT, "failed", f"cannot be started: {error}")
        return watch(spec, attempt.token, group, self._stop_wanted)

    def _end(self, verdict: Verdict, code: int) -> int:
        """Commit the job's end and return this process's exit code."""
        self._check_held()
        state = STATES[verdict.next]
        if state != "succeeded" and self._place.cancelled.exists():
            state = "cancelled"
        self._place.stop.unlink(missing_ok=True)
        self._place.write_outcome(state, code, verdict.reason)
        self._say(f"{state}{': ' if verdict.reason else ''}{verdict.reason}")
        if state == "cancelled":
            return EXIT_CANCELLED
        return code or (1 if state == "failed" else 0)

    def _with_environment(self, child: Child, attempt: Attempt) -> Child:
        spec = self._spec
        own = {ENV_FOLDER: str(spec.folder), ENV_TOKEN: attempt.token, "PYTHONUNBUFFERED": "1"}
        if spec.code is not None:
            own |= {"PYTHONPATH": str(spec.code), "PYTHONSAFEPATH": "1"}
        shared = spec.ranks or spec.array  # several processes, each with its share of the cores
        threads = {"OMP_NUM_THREADS": str(spec.resources.cpus_per_process)} if shared else {}
        given = {**threads, **spec.environment, **secret_values(spec.secrets, os.environ)}
        return replace(child, environment={**given, **child.environment, **own})

    def _ask(self) -> None:
        if self._asked_s is None:
            self._asked_s = time.monotonic()

    def _say(self, text: str) -> None:
        line = f"castbank job {self._spec.id}: {text}\n"
        sys.stderr.write(line)
        sys.stderr.flush()
        log = self._place.log
        if not (log.exists() and os.path.samestat(os.fstat(2), log.stat())):  # Ray and Kubernetes keep stderr
            with log.open("a", encoding="utf-8") as stream:
                stream.write(line)


def _scheduler_id() -> str:
    """What the scheduler calls the job, as its environment says; empty where there is none."""
    return next((os.environ[name] for name in SCHEDULER_IDS if name in os.environ), "")


def main(arguments: Sequence[str]) -> int:
    """Run the job of a folder."""
    return Supervisor(Path(arguments[0])).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
