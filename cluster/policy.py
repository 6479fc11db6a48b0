"""What follows an attempt: the job is done, goes on, is tried again, or has failed. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cluster.job_folder import Attempt
from cluster.spec import EXIT_EMPTY, EXIT_INPUT, Retry

NEVER_AGAIN = (EXIT_INPUT, EXIT_EMPTY)
MAX_BACKOFF_S = 600.0
HINT_AFTER = 2  # failures on one host, and none elsewhere, before it is suspected


@dataclass(frozen=True)
class Verdict:
    """next: what to do now; wait_s: before it; reason: for the owner."""

    next: Literal["done", "again", "requeue", "fail"]
    wait_s: float
    reason: str


def judge(attempts: Sequence[Attempt], retry: Retry) -> Verdict:
    """What follows the last of ``attempts``, all of which have been seen or are known to be cut off."""
    last = attempts[-1]
    if last.kind == "ok":
        return Verdict("done", 0.0, "")
    if last.kind == "preempted":
        return Verdict("requeue", 0.0, last.reason)
    allowed = retry.on_exit_codes or None
    code = last.exit_code or 0
    if code in NEVER_AGAIN or (allowed and code not in allowed and last.kind != "hung"):
        return Verdict("fail", 0.0, f"{last.reason}; exit code {code} is not tried again")
    failures = [a for a in attempts if a.kind in ("failed", "hung")]
    if len(failures) >= retry.max_failures:
        return Verdict(
            "fail", 0.0, f"{last.reason}; that was failure {len(failures)} of {retry.max_failures}"
        )
    if (row := in_a_row(attempts)) >= retry.max_without_progress:
        return Verdict(
            "fail",
            0.0,
            f"{last.reason}; crash loop: {row} failures in a row without a step beyond {last.step}",
        )
    wait_s = min(MAX_BACKOFF_S, retry.backoff_s * 2 ** (row - 1))
    return Verdict("again", wait_s, f"{last.reason}; tried again in {wait_s:g} s")


def in_a_row(attempts: Sequence[Attempt]) -> int:
    """Attempts at the end that failed, hung or were cut off, none of which came further than the one before it."""
    count = 0
    for attempt in reversed(attempts):
        if attempt.kind not in ("failed", "hung", "lost") or (count and attempt.step < attempts[-1].step):
            break
        count += 1
    return count


def suspect_host(attempts: Sequence[Attempt]) -> str:
    """The host on which every failure happened, where that is more than chance; empty without one."""
    hosts = Counter(a.failed_host for a in attempts if a.kind in ("failed", "hung") and a.failed_host)
    return next(iter(hosts)) if len(hosts) == 1 and sum(hosts.values()) >= HINT_AFTER else ""
