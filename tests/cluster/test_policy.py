"""What follows an attempt: the whole table of causes, counts and progress."""

from __future__ import annotations

import pytest

from cluster.job_folder import Attempt
from cluster.policy import in_a_row, judge, suspect_host
from cluster.spec import Retry


def attempts(*told: tuple[str, int, int]) -> list[Attempt]:
    """(kind, exit code, step) of each."""
    return [
        Attempt(k, "t", "h", "", 0.0, 1.0, code, kind, f"it {kind}", step)
        for k, (kind, code, step) in enumerate(told, 1)
    ]


@pytest.mark.parametrize(
    ("told", "retry", "following"),
    [
        ([("ok", 0, 9)], Retry(), "done"),
        ([("preempted", 75, 3)], Retry(), "requeue"),
        ([("failed", 2, 0)], Retry(), "fail"),  # bad input is never tried again
        ([("failed", 3, 0)], Retry(on_exit_codes=(3,)), "fail"),
        ([("failed", 1, 0)], Retry(), "again"),
        ([("failed", 9, 0)], Retry(on_exit_codes=(1, 137)), "fail"),
        ([("failed", 137, 0)], Retry(on_exit_codes=(1, 137)), "again"),
        ([("hung", 1, 5)], Retry(on_exit_codes=(137,)), "again"),  # hung has no code of its own
        ([("failed", 1, 5), ("failed", 1, 5)], Retry(max_without_progress=2), "fail"),
        ([("failed", 1, 5), ("failed", 1, 9)], Retry(max_without_progress=2), "again"),
        ([("failed", 1, 5), ("preempted", 75, 5), ("failed", 1, 5)], Retry(max_without_progress=2), "again"),
        ([("lost", 0, 5), ("lost", 0, 5), ("failed", 1, 5)], Retry(max_without_progress=3), "fail"),
        ([("failed", 1, k) for k in range(3)], Retry(max_failures=3), "fail"),
        ([("lost", 0, 1), ("lost", 0, 2), ("failed", 1, 3)], Retry(max_failures=2), "again"),
        ([("lost", 0, 5)] * 2, Retry(), "again"),
        ([("lost", 0, 5)] * 3, Retry(), "fail"),  # as where the supervisor itself has too little memory
        ([("lost", 0, k) for k in range(30)], Retry(), "again"),  # killed without warning, but it comes on
        ([("lost", 75, 5)], Retry(on_exit_codes=(137,)), "again"),  # nor has it a code of its own
        ([("preempted", 75, 5)] * 30, Retry(), "requeue"),
        ([("preempted", 137, 5)] * 2, Retry(), "requeue"),
        ([("preempted", 137, 5)] * 3, Retry(), "fail"),  # killed each time, and never a checkpoint
        ([("preempted", 137, k) for k in range(30)], Retry(), "requeue"),
        ([("preempted", 137, 5), ("preempted", 75, 5), ("preempted", 137, 5)], Retry(), "requeue"),
    ],
)
def test_what_follows(told: list[tuple[str, int, int]], retry: Retry, following: str) -> None:
    assert judge(attempts(*told), retry).next == following


def test_the_wait_doubles_with_failures_in_a_row_only() -> None:
    retry = Retry(backoff_s=10, max_failures=9, max_without_progress=9)
    one = judge(attempts(("failed", 1, 5)), retry)
    three = judge(attempts(*[("failed", 1, 5)] * 3), retry)
    fresh = judge(attempts(*[("failed", 1, 5)] * 3, ("failed", 1, 6)), retry)
    assert (one.wait_s, three.wait_s, fresh.wait_s) == (10, 40, 10)
    assert judge(attempts(*[("failed", 1, 5)] * 8), retry).wait_s == 600


def test_reasons_name_the_rule() -> None:
    loop = judge(attempts(*[("failed", 1, 5)] * 2), Retry(max_without_progress=2))
    assert loop.reason == "it failed; crash loop: 2 failures in a row without a step beyond 5"
    assert "exit code 2 is not tried again" in judge(attempts(("failed", 2, 0)), Retry()).reason


def test_going_back_breaks_no_row() -> None:
    assert in_a_row(attempts(("failed", 1, 8), ("failed", 1, 4))) == 2  # started from an older checkpoint
    assert in_a_row(attempts(("failed", 1, 4), ("failed", 1, 8))) == 1


def test_one_host_is_suspected_when_all_failures_were_there() -> None:
    def on(*hosts: str) -> list[Attempt]:
        return [Attempt(k, "t", "h", "", 0, 1, 1, "failed", failed_host=host) for k, host in enumerate(hosts)]

    assert suspect_host(on("n2", "n2")) == "n2"
    assert suspect_host(on("n2")) == ""
    assert suspect_host(on("n1", "n2", "n2")) == ""


@pytest.mark.parametrize("kind", ["lost", "preempted"])
@pytest.mark.parametrize(("lived_s", "ends"), [(5.0, True), (3600.0, False)])
def test_without_steps_a_long_life_is_progress(kind: str, lived_s: float, ends: bool) -> None:
    """As of a preparation that a scheduler kills without a warning."""
    cut = [Attempt(k, "t", "h", "", 100.0, 100.0 + lived_s, 137, kind) for k in range(3)]
    assert (judge(cut, Retry(), with_steps=False).next == "fail") == ends
    assert judge(cut, Retry()).next == "fail"
