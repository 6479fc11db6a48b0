"""Figures by noise level and character against plain loops, also when a batch is split over passes and ranks."""

from __future__ import annotations

import pytest
import torch

from pipeline.objective import curves


def added(parts: list[dict[str, torch.Tensor]]) -> dict[str, tuple[float, float]]:
    return {name: tuple(torch.stack([part[name] for part in parts]).sum(0).tolist()) for name in parts[0]}


def test_errors_by_level_are_means_over_the_samples_of_that_level_in_any_split() -> None:
    generator = torch.Generator().manual_seed(0)
    values, level = torch.rand(64, generator=generator), torch.rand(64, generator=generator)
    level[0], level[1] = 1.0, 0.25
    split = [curves.by_level("error", values[at], level[at]) for at in (slice(0, 5), slice(5, 64))]
    found = curves.divided(added(split))
    for low, high in ((0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)):
        mine = [
            v
            for v, s in zip(values.tolist(), level.tolist(), strict=True)
            if low <= s < high or s == high == 1
        ]
        assert found[f"error_at_{low:.2f}_{high:.2f}"] == pytest.approx(sum(mine) / len(mine), rel=1e-5)


def test_what_nothing_counted_for_is_left_out() -> None:
    found = curves.divided(added([curves.by_level("error", torch.ones(2), torch.tensor([0.1, 0.2]))]))
    assert found == {"error_at_0.00_0.25": 1.0}


def test_errors_by_character_follow_the_person_not_the_slot() -> None:
    values = torch.tensor([[1.0, 2.0], [30.0, 9.0], [5.0, 7.0]])
    seen = torch.tensor([[True, True], [True, False], [True, True]])
    casts = (("anna", "ben"), ("ben",), ("cem", "anna"))
    pairs = curves.by_character("error", values, seen, casts, ("anna", "ben", "dora"))
    assert curves.divided(added([pairs])) == {"error/anna": 4.0, "error/ben": 16.0}


def test_the_most_frequent_characters_have_curves() -> None:
    casts = [("b", "a"), ("b",), ("c", "b"), ("c",)]
    assert curves.most_frequent(casts, 2) == ("b", "c")
    assert curves.most_frequent(casts, 9) == ("a", "b", "c")
