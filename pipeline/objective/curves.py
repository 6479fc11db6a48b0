"""What training shows beside its losses: the same errors by noise level and by character.

A batch holds only some levels and some people, so each figure is a pair, f32[2] of a sum and a count: pairs are
added over passes and ranks, and only then divided. A figure that nothing counted for is left out of that step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch

LEVEL_ENDS = (0.0, 0.25, 0.5, 0.75, 1.0)  # quarters: what is learned at each differs more than within


def by_level(name: str, values: torch.Tensor, level: torch.Tensor) -> dict[str, torch.Tensor]:
    """``NAME_at_LOW_HIGH`` to the pair of ``values`` f32[B] of samples whose noise level f32[B] is in [low, high);
    the last quarter includes 1."""
    pairs = {}
    for low, high in pairwise(LEVEL_ENDS):
        inside = (level >= low) & ((level < high) | (high == LEVEL_ENDS[-1]))
        pairs[f"{name}_at_{low:.2f}_{high:.2f}"] = pair(values, inside)
    return pairs


def by_character(
    name: str, values: torch.Tensor, seen: torch.Tensor, casts: Sequence[Sequence[str]], shown: Sequence[str]
) -> dict[str, torch.Tensor]:
    """``NAME/CHARACTER`` of each of the ``shown`` characters to the pair of its values.

    Args:
        name: of the figure.
        values: f32[B,N], by slot.
        seen: bool[B,N], where there is a value.
        casts: the character of each slot, per sample.
        shown: characters with a curve of their own, the same on every rank.
    """
    pairs = {}
    for character in shown:
        is_it = torch.zeros_like(seen)
        for row, cast in zip(is_it, casts, strict=True):
            for slot, member in enumerate(cast):
                row[slot] = member == character
        pairs[f"{name}/{character}"] = pair(values, seen & is_it)
    return pairs


def pair(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """f32[2]: sum and count of the chosen values."""
    counted = torch.where(chosen, values.detach().float(), 0.0)
    return torch.stack([counted.sum(), chosen.sum().float()])


def most_frequent(casts: Sequence[Sequence[str]], most: int) -> tuple[str, ...]:
    """The characters that most samples show, at most ``most``, in the order of their names."""
    counts: dict[str, int] = {}
    for cast in casts:
        for character in cast:
            counts[character] = counts.get(character, 0) + 1
    chosen = sorted(counts, key=lambda character: (-counts[character], character))[:most]
    return tuple(sorted(chosen))


def divided(totals: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Sums over counts, without those that nothing counted for."""
    return {name: total / count for name, (total, count) in totals.items() if count > 0}
