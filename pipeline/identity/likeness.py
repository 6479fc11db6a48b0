"""How like a character's references are to each other and to those of other characters of a bank."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch.nn import functional

from pipeline.identity.bank import BankEntry


@dataclass(frozen=True)
class Likeness:
    """Cosines, in [-1,1], of all pairs of embeddings of ``name`` and of the character that was asked for."""

    name: str
    mean: float
    least: float
    most: float


def own(entry: BankEntry) -> Likeness | None:
    """A character's references against each other; None where there are fewer than two."""
    count = len(entry.references)
    if count < 2:
        return None
    pairs = torch.triu_indices(count, count, 1)
    return _likeness(entry.name, _cosines(entry, entry)[pairs[0], pairs[1]])


def others(entry: BankEntry, entries: Iterable[BankEntry]) -> list[Likeness]:
    """Every other character of the same face pack against this one, the most alike first."""
    found = [
        _likeness(other.name, _cosines(entry, other))
        for other in entries
        if other.name != entry.name and other.pack == entry.pack
    ]
    return sorted(found, key=lambda likeness: -likeness.most)


def _cosines(a: BankEntry, b: BankEntry) -> torch.Tensor:
    """f32[R,R'] of all references of two characters."""
    unit_a, unit_b = (functional.normalize(entry.references.float(), dim=-1) for entry in (a, b))
    return unit_a @ unit_b.T


def _likeness(name: str, cosines: torch.Tensor) -> Likeness:
    return Likeness(name, float(cosines.mean()), float(cosines.min()), float(cosines.max()))
