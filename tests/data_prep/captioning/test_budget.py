"""A cap that holds whatever is asked at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from data_prep.captioning.budget import Budget
from data_prep.records import InputError


def test_nothing_that_could_pass_the_cap_is_begun() -> None:
    budget = Budget(1.0, spent_usd=0.4)
    budget.hold(0.5)
    with pytest.raises(
        InputError, match=r"captions\.max_usd: 0\.4000 of 1 dollars are spent, and the next request"
    ):
        budget.hold(0.2)
    budget.settle(0.5, cost_usd=0.1)
    budget.hold(0.5)
    budget.settle(0.5, cost_usd=0.0)
    assert budget.spent_usd == pytest.approx(0.5)


def test_many_threads_together_do_not_pass_it() -> None:
    budget = Budget(5.0, 0.0)

    def ask(_: int) -> int:
        try:
            budget.hold(0.1)
        except InputError:
            return 0
        budget.settle(0.1, 0.1)
        return 1

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(ask, range(400))) in (49, 50)  # by how tenths add up
    assert budget.spent_usd <= 5.0 + 1e-9
