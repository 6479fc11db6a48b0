"""One pod of a training on several nodes: waits for the others, runs its ranks, and ends as all of them agree.

A process makes one attempt; the next is made by the pods that Kubernetes starts after it. Pod 0 keeps the job's
books: attempts, the token of the one that may write, and how the job ended.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from cluster import heartbeats
from cluster.job_folder import Attempt, JobFolder
from cluster.kubernetes.children import node_children
from cluster.kubernetes.gang import Decision, End, Gang
from cluster.kubernetes.objects import EXIT_FINAL
from cluster.outcomes import close_cut_off
from cluster.policy import judge
from cluster.processes import LAST_WORDS_S, Group
from cluster.spec import EXIT_EMPTY, EXIT_INPUT, EXIT_KILLED, EXIT_REQUEUE, JobError, State

POLL_S = 0.2  # of this pod's own processes
GANG_POLL_S = 1.0  # of files that a file server keeps
HEARD_OUT_S = 30.0  # how long pod 0 waits for the others to say how they ended, and they for what it decides
T = TypeVar("T")
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


@dataclass(frozen=True)
class _Watched:
    """Where one attempt of this pod stands. told_s: since when its ranks are asked to stop; lost_s: since when a
    peer is known to have failed, so that they are only given time for last words."""

    started_s: float
    told_s: float | None = None
    lost_s: float | None = None


class Node:
    """This pod's part in a training."""

    def __init__(self, folder: Path, index: int) -> None:
        self._place, self._index = JobFolder(folder), index
        self._spec = self._place.spec()
        self._nodes = self._spec.resources.nodes
        self._gang = Gang(folder, index, self._nodes)
        self._ears: heartbeats.Ears  # for the attempt, once it has begun
        self._asked = False

    def run(self) -> int:
        """Make one attempt with the others; returns the exit code of this process."""
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: self._ask())
        self._gang.join()
        try:
            if not self._gather():
                return self._never_began()
            self._ears = heartbeats.Ears(self._place.heartbeats, self._gang.token)
            end = self._attempt()
            self._gang.report(end)
            self._say(f"{end.kind}: {end.reason or 'its processes have ended'}")
            return self._conclude() if self._index == 0 else self._follow()
        finally:
            self._gang.leave()

    def _gather(self) -> bool:
        """Until all pods are there; False where this one is asked to stop first."""
        self._say(f"waits for the {self._nodes} pods of the job")
        while not self._asked and not self._place.cancelled.exists() and not self._has_failed():
            self._gang.join()
            if self._index > 0 and self._gang.sealed():
                return True
            if self._index == 0 and (members := self._gang.gather()):
                if self._lost_too_often():
                    return False
                self._begin(members)
                return True
            time.sleep(GANG_POLL_S)
        return False

    def _has_failed(self) -> bool:
        outcome = self._place.outcome()
        return outcome is not None and outcome.state == "failed"

    def _lost_too_often(self) -> bool:
        """For pod 0: whether the attempts that nobody saw end, of which there may be a new one, end the job."""
        counted = self._place.counted() if close_cut_off(self._place) is not None else []
        verdict = judge(counted, self._spec.retry) if counted else None
        if verdict is None or verdict.next != "fail":
            return False
        self._say(verdict.reason)
        self._place.write_outcome("failed", 1, verdict.reason)
        return True

    def _never_began(self) -> int:
        if self._has_failed():
            return EXIT_FINAL
        if not self._place.cancelled.exists():
            return EXIT_REQUEUE
        if self._index == 0:
            self._place.write_outcome("cancelled", 0, "before all of its pods were there")
        return EXIT_FINAL

    def _begin(self, members: tuple[str, ...]) -> None:
        place, token = self._place, secrets.token_hex(8)
        number = len(place.attempts()) + 1
        place.note_attempt(
            Attempt(number, token, os.uname().nodename, os.environ.get("HOSTNAME", ""), time.time())
        )
        place.claim(token)
        place.stop.unlink(missing_ok=True)
        heartbeats.forget(place.heartbeats)
        self._gang.seal(members, token)

    def _attempt(self) -> End:
        try:
            children = node_children(self._spec, self._index, self._gang.token)
            group = Group(children, self._spec.workdir)
        except (OSError, JobError) as error:
            return self._end(EXIT_INPUT, "failed", f"cannot be started: {error}", 0)
        state, looked_s = _Watched(time.monotonic()), 0.0
        while True:
            if time.monotonic() - looked_s > GANG_POLL_S:
                looked_s = time.monotonic()
                state = self._look_around(state)
                if state.told_s is not None and state.told_s >= looked_s:
                    group.signal(signal.SIGTERM)
                if (reason := self._given_up(state)) is not None:
                    group.kill()
                    return reason
            ended = group.ended()
            if ended is not None:
                return self._account(ended.code, ended.index, state)
            time.sleep(POLL_S)

    def _look_around(self, state: _Watched) -> _Watched:
        """Notice a request to stop, and peers that have failed or are others than before."""
        now_s = time.monotonic()
        if self._asked and not self._place.stop.exists() and state.told_s is None:
            self._place.stop.touch()  # the whole training stops, since no rank can go on without the others
        if state.told_s is None and (self._place.stop.exists() or self._place.cancelled.exists()):
            state = replace(state, told_s=now_s)
        if state.lost_s is None:
            bad = self._gang.num_reports() and any(
                e.kind in ("failed", "hung") for e in self._gang.reports().values()
            )
            if bad or self._gang.replaced() is not None:
                state = replace(state, lost_s=now_s)
        return state

    def _given_up(self, state: _Watched) -> End | None:
        """How this attempt ends, where its processes are not waited for any longer."""
        now_s, stopping = time.monotonic(), self._spec.stopping
        if state.lost_s is not None and now_s - state.lost_s > LAST_WORDS_S:
            return self._end(EXIT_REQUEUE, "gone", "another pod failed or was replaced", 0)
        if state.told_s is not None and now_s - state.told_s > stopping.grace_s:
            reason = f"killed: no end within {stopping.grace_s} s of the request"
            return self._end(EXIT_KILLED, "preempted", reason, 0)
        silent = self._ears.silent(stopping.hang_s)
        if silent is not None:
            return self._end(1, "hung", silent.text(), silent.rank)
        if now_s - state.started_s > stopping.hang_s:
            gone = set(self._ears.unheard(self._spec.world)) & set(self._ranks())
            if gone:
                reason = f"rank {min(gone)} has never been seen, {stopping.hang_s} s on"
                return self._end(1, "hung", reason, min(gone))
        return None

    def _account(self, code: int, local: int, state: _Watched) -> End:
        rank = self._ranks()[local]
        if code == 0:
            return self._end(0, "ok", "", rank)
        if code == EXIT_REQUEUE or (state.told_s is not None and code == 128 + signal.SIGTERM):
            return self._end(EXIT_REQUEUE, "preempted", "stopped on request; it goes on where it was", rank)
        how = f"was killed by signal {code - 128}" if code > 128 else f"ended with {code}"
        kind = "gone" if state.lost_s is not None and code not in (EXIT_INPUT, EXIT_EMPTY) else "failed"
        return self._end(code, kind, f"process {rank} of {self._spec.world} {how}", rank)

    def _conclude(self) -> int:
        """For pod 0: hear the others out, keep the books, and decide."""
        reports = self._heard()
        end = worst(reports, self._nodes)
        place = self._place
        attempt = replace(
            place.attempts()[-1],
            end_s=time.time(),
            exit_code=end.code,
            kind="lost" if end.kind == "gone" else end.kind,
            reason=end.reason,
            step=heartbeats.last_step(place.heartbeats, self._gang.token),
            failed_rank=end.rank if end.kind in ("failed", "hung") else None,
            failed_host=end.host if end.kind in ("failed", "hung") else "",
        )
        place.note_attempt(attempt)
        verdict = judge(place.counted(), self._spec.retry)
        self._say(f"attempt {attempt.number} {end.kind}: {verdict.reason or 'done'}")
        code, others = exit_codes(verdict.next, end.code)
        states: Mapping[str, State] = {"done": "succeeded", "fail": "failed", "requeue": "preempted"}
        if verdict.next in states:
            cancelled = place.cancelled.exists() and verdict.next != "done"
            place.write_outcome("cancelled" if cancelled else states[verdict.next], end.code, verdict.reason)
        self._gang.decide(Decision(self._gang.token, others, verdict.wait_s))
        self._until(lambda: self._asked or None, verdict.wait_s)
        return code

    def _heard(self) -> Mapping[int, End]:
        """What all pods report, or those that do in time; while they stop they have grace_s for it."""
        self._outlast(self._one_is_over)
        wait_s = HEARD_OUT_S + (self._spec.stopping.grace_s if self._place.stop.exists() else 0)

        def all_there() -> Mapping[int, End] | None:
            reports = self._gang.reports()
            return reports if len(reports) == self._nodes or self._gang.replaced() is not None else None

        return self._until(all_there, wait_s) or self._gang.reports()

    def _follow(self) -> int:
        """For the other pods: what pod 0 decides. Without that, never 0: a pod that succeeds is not made again."""
        self._outlast(lambda: self._gang.has_reported(0))
        grace_s = self._spec.stopping.grace_s
        decision = self._until(
            lambda: EXIT_REQUEUE if self._gang.replaced() is not None else self._gang.decision(),
            HEARD_OUT_S * 2 + grace_s,
        )
        if not isinstance(decision, Decision):
            return EXIT_REQUEUE
        self._until(lambda: self._asked or None, decision.wait_s)
        return decision.code

    def _one_is_over(self) -> bool:
        """Whether nothing more can come of the attempt: all pods have reported, or one that it did not go well."""
        reports = self._gang.reports()
        return len(reports) == self._nodes or any(end.kind != "ok" for end in reports.values())

    def _outlast(self, over: Callable[[], bool]) -> None:
        """Wait for ranks that have more to do than this pod's, as rank 0 that exports, for as long as all are heard
        of: a pod that ended before them would be replaced, and so end them."""
        while not over() and self._gang.replaced() is None:
            if self._ears.silent(self._spec.stopping.hang_s) is not None:
                return
            if self._asked and not self._place.stop.exists():
                self._place.stop.touch()
            time.sleep(GANG_POLL_S)

    def _until(self, found: Callable[[], T | None], wait_s: float) -> T | None:
        until_s = time.monotonic() + wait_s
        while (value := found()) is None and time.monotonic() < until_s:
            time.sleep(GANG_POLL_S / 2)
        return value

    def _ranks(self) -> range:
        local = self._spec.resources.processes_per_node
        return range(self._index * local, (self._index + 1) * local)

    def _end(self, code: int, kind: str, reason: str, rank: int) -> End:
        return End(code, kind, reason, rank, os.uname().nodename, time.time())

    def _ask(self) -> None:
        self._asked = True

    def _say(self, text: str) -> None:
        sys.stderr.write(f"castbank job {self._spec.id}, pod {self._index}: {text}\n")
        sys.stderr.flush()


def worst(reports: Mapping[int, End], nodes: int) -> End:
    """How an attempt ended, from what its pods report: bad input says most, then who failed first."""
    failed = [end for end in reports.values() if end.kind in ("failed", "hung")]
    if failed:
        return min(failed, key=lambda end: (end.code not in (EXIT_INPUT, EXIT_EMPTY), end.at_s))
    silent = next((index for index in range(nodes) if index not in reports), None)
    stopped = [end for end in reports.values() if end.kind == "preempted"]
    if stopped:
        return max(stopped, key=lambda end: end.code)  # one that was killed has left no checkpoint
    if silent is not None:
        reason = f"pod {silent} is gone without a word: its node was lost, or its memory was too small"
        return End(128 + signal.SIGKILL, "failed", reason, 0, "", time.time())
    return next((end for end in reports.values() if end.kind != "ok"), reports[0])


def exit_codes(following: str, code: int) -> tuple[int, int]:
    """The exit codes of pod 0 and of the others; of a failure that is tried again, one pod is counted."""
    if following == "done":
        return 0, 0
    if following == "fail":
        final = code if code in (EXIT_INPUT, EXIT_EMPTY) else EXIT_FINAL
        return final, final
    return (EXIT_REQUEUE, EXIT_REQUEUE) if following == "requeue" else (1, EXIT_REQUEUE)
