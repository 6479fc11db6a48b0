"""The failure budget against coins that are thrown, and against the exact binomial tail."""

from __future__ import annotations

import random

import pytest
from scipy.stats import binom

from data_prep.ledger.budget import FALSE_ALARM, MOST_EXCUSED, FailureBudget


def stopped_at(budget: FailureBudget, failures: list[bool]) -> int:
    """How many were tried when it said stop; 0 where it never did."""
    for tried, failed in enumerate(failures, 1):
        budget.count(failed)
        if budget.is_exceeded():
            return tried
    return 0


def test_a_run_in_which_everything_fails_stops_at_once() -> None:
    assert stopped_at(FailureBudget(0.1, 1_000_000), [True] * 1000) == MOST_EXCUSED + 1


@pytest.mark.parametrize("seed", range(5))
def test_half_failing_is_seen_within_a_hundred_clips_of_a_million(seed: int) -> None:
    coin = random.Random(seed)
    assert 0 < stopped_at(FailureBudget(0.1, 1_000_000), [coin.random() < 0.5 for _ in range(1000)]) <= 100


@pytest.mark.parametrize("seed", range(5))
def test_a_share_below_the_allowed_one_never_stops_a_run(seed: int) -> None:
    coin = random.Random(seed)
    failures = [coin.random() < 0.08 for _ in range(50_000)]
    budget = FailureBudget(0.1, len(failures))
    assert stopped_at(budget, failures) == 0
    assert not budget.is_exceeded(at_end=True)


def test_it_stops_only_where_the_exact_tail_is_smaller_than_a_false_alarm() -> None:
    """P(X >= k) of a binomial, by scipy, is below the bound wherever the bound stops."""
    for num_tried in (12, 30, 100, 1000):
        for num_failed in range(MOST_EXCUSED + 1, num_tried):
            if FailureBudget(0.1, 10**9, num_tried, num_failed).is_exceeded():
                assert binom.sf(num_failed - 1, num_tried, 0.1) < FALSE_ALARM


def test_a_small_corpus_is_gone_through_before_it_fails() -> None:
    budget = FailureBudget(0.1, 20)
    assert stopped_at(budget, [True] * 5 + [False] * 15) == 0
    assert budget.is_exceeded(at_end=True)
    assert budget.said == "2, 0.1 of all 20"


def test_nothing_allowed_and_everything_allowed() -> None:
    assert not FailureBudget(0.0, 5, 5, 0).is_exceeded(at_end=True)
    assert FailureBudget(0.0, 5, 5, 1).is_exceeded(at_end=True)
    assert stopped_at(FailureBudget(1.0, 100), [True] * 100) == 0
    assert not FailureBudget(1.0, 100, 100, 100).is_exceeded(at_end=True)
