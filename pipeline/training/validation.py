"""Validation: the same samples, from sources that are not trained on, at the same noise levels, again and again.

A training loss rises and falls with the noise levels that a batch happens to draw; this one can be compared between
steps, runs and strategies. Nothing is dropped, and every character is shown its references from outside.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch

from data_prep.records import InputError
from data_prep.shards import IndexRow
from pipeline.batch import Batch
from pipeline.config import ValidationConfig
from pipeline.objective.curves import pair

FIRST_POSITION = 2**40  # of the noise of validation samples: no training comes this far
FIGURES = {"loss_diffusion": "validation_loss", "router_accuracy": "validation_router_accuracy"}


class Evaluator(Protocol):
    """What an engine offers."""

    def evaluate(self, batch: Batch, level: float) -> Mapping[str, torch.Tensor]:
        """The objective's scalars of a batch at one noise level, without learning from it."""


def held_out(rows: Sequence[IndexRow], share: float, seed: int) -> frozenset[str]:
    """Ids of the sources kept from training: whole ones, drawn by hash, until they hold ``share`` of the samples.

    People may be in both: a bank is to know them in pictures that it was not trained on. Raises InputError where
    there is a single source, or where nothing would be left.
    """
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.source_id] = counts.get(row.source_id, 0) + 1
    wanted, chosen, kept = share * len(rows), [], 0
    for source in sorted(counts, key=lambda source: hashlib.sha256(f"{seed}/{source}".encode()).digest()):
        if kept >= wanted:
            break
        chosen.append(source)
        kept += counts[source]
    if len(chosen) == len(counts) and chosen:
        raise InputError(
            f"data.held_out={share}: the samples are of {len(counts)} source(s), and whole ones are kept from "
            "training; set it to 0, lower it, or prepare clips of more sources"
        )
    return frozenset(chosen)


class Validation:
    """One rank's part of the validation of a run."""

    def __init__(
        self, config: ValidationConfig, load: Callable[[int], Batch], num_samples: int, place: tuple[int, int]
    ) -> None:
        """``load`` gives the k-th of ``num_samples`` as a batch of one; ``place``: rank, and how many there are."""
        self._config, self._load = config, load
        self._num, (self._rank, self._world) = num_samples, place
        self._batches: list[tuple[Batch, bool]] | None = None

    def due(self, step: int) -> bool:
        """Whether the weights after ``step`` updates are to be looked at."""
        return bool(self._config.every_steps) and step % self._config.every_steps == 0

    def run(self, engine: Evaluator, step: int, beat: Callable[[], None]) -> dict[str, torch.Tensor]:
        """Pairs (see ``curves``) of the validation's figures over this rank's samples.

        Every rank makes as many passes, as those of ZeRO-3 need each other: the last ones may count nothing.
        """
        pairs: dict[str, torch.Tensor] = {}
        for batch, counts in self._loaded():
            for level in self._config.levels:
                beat()
                for key, value in _figures(engine.evaluate(batch, level), level, counts).items():
                    pairs[key] = pairs[key] + value if key in pairs else value
        return pairs

    def _loaded(self) -> list[tuple[Batch, bool]]:
        if self._batches is None:
            passes = -(-self._num // self._world)
            numbers = [self._rank + k * self._world for k in range(passes)]
            self._batches = [(self._load(n % self._num), n < self._num) for n in numbers]
        return self._batches


def _figures(scalars: Mapping[str, torch.Tensor], level: float, counts: bool) -> dict[str, torch.Tensor]:
    """Pairs of one pass: the figures over all levels, and the loss at this one."""
    found = {}
    for name, shown in FIGURES.items():
        if name in scalars:
            value = scalars[name].reshape(1)
            found[shown] = pair(value, torch.full_like(value, counts, dtype=torch.bool))
            if name == "loss_diffusion":
                found[f"{shown}_at_{level:.2f}"] = found[shown]
    return found
