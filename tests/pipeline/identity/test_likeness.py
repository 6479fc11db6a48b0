"""Cosines between references, by angles that are known."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.identity.bank import BankEntry
from pipeline.identity.likeness import others, own


def entry(name: str, *angles_deg: float, pack: str = "embedded") -> BankEntry:
    """References of length 3 in a plane."""
    turned = [(3 * math.cos(math.radians(a)), 3 * math.sin(math.radians(a))) for a in angles_deg]
    return BankEntry(name, torch.zeros(1, 2), torch.tensor(turned), pack=pack)


def test_own_references_pair_by_pair() -> None:
    found = own(entry("anna", 0, 60, 90))
    assert found is not None
    pairs = [math.cos(math.radians(a)) for a in (60, 90, 30)]
    assert (found.mean, found.least, found.most) == pytest.approx((sum(pairs) / 3, 0, pairs[2]), abs=1e-6)
    assert own(entry("anna", 0)) is None


def test_others_the_most_alike_first_and_only_of_the_same_pack() -> None:
    bank = [
        entry("anna", 0),
        entry("far", 120, 180),
        entry("near", 30, 90),
        entry("other", 0, pack="embedded_alt"),
    ]
    found = others(bank[0], bank)
    assert [one.name for one in found] == ["near", "far"]
    assert found[0].most == pytest.approx(math.cos(math.radians(30)), abs=1e-6)
    assert found[1].least == pytest.approx(-1, abs=1e-6)
