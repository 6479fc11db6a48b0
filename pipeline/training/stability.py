"""What may spoil a training, seen in the numbers of its steps: values that are not finite, and losses far off.

Every rank sees the same means, so that every rank draws the same conclusions without asking the others.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from data_prep.records import Json
from pipeline.config import StabilityConfig

LEAST_LOSSES = 20  # fewer say nothing about how losses are spread
TO_DEVIATION = 1.4826  # median absolute deviation of a normal distribution to its standard deviation
LEAST_SPREAD = 0.01  # of the median: losses that hardly vary make no spike of a small step


@dataclass(frozen=True)
class Pass:
    """One forward pass of one rank: the keys of its samples, and whether its own loss was finite."""

    rank: int
    keys: tuple[str, ...]
    finite: bool


@dataclass(frozen=True)
class Incident:
    """A step to look at. step: updates done with it; record: what is kept of it, in a file of its kind."""

    kind: Literal["nonfinite", "spikes"]
    step: int
    record: Json
    text: str


class SpikeDetector:
    """Compares each loss with the window before it: (loss - median) / (1.4826 x median absolute deviation), the
    robust z-score of Iglewicz & Hoaglin 1993, which one spike in the window does not blunt."""

    def __init__(self, config: StabilityConfig) -> None:
        self._least_score = config.spike_score
        self._losses: deque[float] = deque(maxlen=config.spike_window)

    def score(self, loss: float) -> float | None:
        """The score of a loss that is a spike, else None; the loss joins the window."""
        before = list(self._losses)
        self._losses.append(loss)
        if not self._least_score or len(before) < min(LEAST_LOSSES, self._losses.maxlen or 0):
            return None
        middle = statistics.median(before)
        spread = TO_DEVIATION * statistics.median(abs(value - middle) for value in before)
        score = (loss - middle) / max(spread, LEAST_SPREAD * abs(middle), 1e-12)
        return score if score >= self._least_score else None


class NonFinite:
    """Counts steps in a row whose update was left out, and says when to stop."""

    def __init__(self, config: StabilityConfig) -> None:
        self._config = config
        self._in_a_row = 0

    def fine(self) -> None:
        """A step whose update was made."""
        self._in_a_row = 0

    def stops(self) -> bool:
        """One more step without an update: whether it is one too many."""
        self._in_a_row += 1
        return self._config.on_nonfinite == "stop" or self._in_a_row > self._config.max_skipped


def nonfinite(step: int, scalars: Mapping[str, float], passes: Sequence[Pass]) -> Incident:
    """A step with an infinite or NaN loss or gradient; blames the passes whose own loss it was, or, where only the
    gradient was, all of them."""
    guilty = [found for found in passes if not found.finite]
    what = "loss" if guilty else "gradient"
    blamed = guilty or passes
    record: Json = {
        "step": step,
        "what": what,
        "samples": [{"rank": found.rank, "keys": list(found.keys)} for found in blamed],
        "scalars": {name: _written(value) for name, value in scalars.items()},
    }
    text = f"step {step}: the {what} is not finite ({_named(blamed)}); kept in nonfinite.jsonl"
    return Incident("nonfinite", step, record, text)


def spike(step: int, score: float, scalars: Mapping[str, float], passes: Sequence[Pass]) -> Incident:
    """A step whose loss is far above those before it."""
    record: Json = {
        "step": step,
        "score": score,
        "samples": [{"rank": found.rank, "keys": list(found.keys)} for found in passes],
        "scalars": {name: _written(value) for name, value in scalars.items()},
    }
    text = (
        f"step {step}: the loss of {scalars['loss']:.4g} is {score:.1f} robust deviations above those before it "
        f"({_named(passes)}); kept in spikes.jsonl"
    )
    return Incident("spikes", step, record, text)


def _written(value: float) -> float | str:
    """JSON has no word for what is not finite."""
    return value if math.isfinite(value) else str(value)


def _named(passes: Sequence[Pass], most: int = 6) -> str:
    keys = [f"{key} on rank {found.rank}" for found in passes for key in found.keys]
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return f"samples {', '.join(keys[:most])}{more}"
