"""What follows an attempt: the job is done, goes on, is tried again, or has failed. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cluster.job_folder import Attempt
from cluster.spec import EXIT_EMPTY, EXIT_INPUT, EXIT_KILLED, Retry

NEVER_AGAIN = (EXIT_INPUT, EXIT_EMPTY)
MAX_BACKOFF_S = 600.0
LIVED_S = 600.0  # a lost attempt without steps that lived for longer is taken to have done something
HINT_AFTER = 2  # failures on one host, and none elsewhere, before it is suspected


@dataclass(frozen=True)
class Verdict:
    """next: what to do now; wait_s: before it; reason: for the owner."""

    next: Literal["done", "again", "requeue", "fail"]
    wait_s: float
    reason: str


def judge(attempts: Sequence[Attempt], retry: Retry, *, with_steps: bool = True) -> Verdict:
    """What follows the last of ``attempts``, all of which have been seen or are known to be cut off.

    Args:
        attempts: since the job's owner last asked for it.
        retry: of the job.
        with_steps: whether its processes say how far they are; else only how long they lived tells of progress.
    """
    last, row = attempts[-1], in_a_row(attempts, with_steps=with_steps)
    if last.kind == "ok":
        return Verdict("done", 0.0, "")
    if last.kind == "preempted" and row < retry.max_without_progress:
        return Verdict("requeue", 0.0, last.reason)
    allowed = retry.on_exit_codes or None
    code = last.exit_code or 0
    if code in NEVER_AGAIN or (allowed and code not in allowed and last.kind == "failed"):
        return Verdict("fail", 0.0, f"{last.reason}; exit code {code} is not tried again")
    failures = [a for a in attempts if a.kind in ("failed", "hung")]
    if len(failures) >= retry.max_failures:
        return Verdict(
            "fail", 0.0, f"{last.reason}; that was failure {len(failures)} of {retry.max_failures}"
        )
    if row >= retry.max_without_progress:
        return Verdict(
            "fail",
            0.0,
            f"{last.reason}; crash loop: {row} failures in a row without a step beyond {last.step}",
        )
    wait_s = min(MAX_BACKOFF_S, retry.backoff_s * 2 ** max(row - 1, 0))
    return Verdict("again", wait_s, f"{last.reason}; tried again in {wait_s:g} s")


def in_a_row(attempts: Sequence[Attempt], *, with_steps: bool = True) -> int:
    """Attempts at the end that failed, hung, were cut off, or were killed as they did not stop when asked, none of
    which came further than the one before it."""
    count = 0
    for attempt in reversed(attempts):
        further = count and attempt.step < attempts[-1].step
        if not _in_vain(attempt, with_steps) or further:
            break
        count += 1
    return count


def _in_vain(attempt: Attempt, with_steps: bool) -> bool:
    if attempt.kind in ("failed", "hung"):
        return True
    killed = attempt.kind == "preempted" and attempt.exit_code == EXIT_KILLED
    lived_s = (attempt.end_s or attempt.start_s) - attempt.start_s
    return (killed or attempt.kind == "lost") and (with_steps or lived_s <= LIVED_S)


def suspect_host(attempts: Sequence[Attempt]) -> str:
    """The host on which every failure happened, where that is more than chance; empty without one."""
    hosts = Counter(a.failed_host for a in attempts if a.kind in ("failed", "hung") and a.failed_host)
    return next(iter(hosts)) if len(hosts) == 1 and sum(hosts.values()) >= HINT_AFTER else ""
