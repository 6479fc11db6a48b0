"""Names of strategies: all are there, mixes go from outside in, and what does not go together is named."""

from __future__ import annotations

import pytest

from data_prep.records import InputError
from pipeline.strategies.drawing import STRATEGIES
from pipeline.strategies.names import ABOUT, describe, parse


def test_every_strategy_is_described_and_every_described_one_is_there() -> None:
    assert ABOUT.keys() == STRATEGIES.keys()
    assert all(name in describe() for name in ABOUT)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("bank", ("bank",)),
        ("bank+anchored", ("anchored", "bank")),
        ("tracked + keyframes", ("keyframes", "tracked")),
        ("two-paths+lock+tracked+context+anchored", ("anchored", "context", "tracked", "lock", "two-paths")),
    ],
)
def test_a_mix_goes_from_the_outermost_to_the_innermost(name: str, parts: tuple[str, ...]) -> None:
    assert parse(name) == parts


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("banc", "did you mean 'bank'"),
        ("", "'' is none; there are bank, two-paths"),
        ("anchored+", "'' is none"),
        ("context+keyframes", "context and keyframes both decide the time"),
        ("bank+two-paths", "both decide the identity; a mix takes one of bank, two-paths"),
        ("bank+bank", "bank and bank both"),
    ],
)
def test_what_is_none_or_does_not_go_together_is_named(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(name)
