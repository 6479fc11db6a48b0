"""How far a mean over videos can be trusted: bootstrap intervals, and paired comparison of two evaluations.

The unit that is drawn anew is the video (one prompt with one seed), never the frame: the frames of a video are not
independent, and an interval over them would be far too narrow. Intervals are BCa (Efron 1987), by scipy.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from data_prep.records import F64
from pipeline.judging.figures import Figure, figure_of

CONFIDENCE = 0.95
RESAMPLES = 2000  # bounds then tremble by some 3 % of the interval's width
SIGNIFICANT = 1 - CONFIDENCE
MIN_PAIRS = 6  # with fewer no two-sided signed-rank test can reach 0.05: 2 / 2^5 = 0.0625

Verdict = Literal["better", "worse", "different", "undecided", "too few"]


@dataclass(frozen=True)
class Interval:
    """mean of ``num`` videos that have the figure, and the bounds of its confidence interval, NaN below two."""

    mean: float
    low: float
    high: float
    num: int


@dataclass(frozen=True)
class Difference:
    """Of one figure over the same prompts and seeds: the means of A and of B, the interval of B − A, two-sided p of
    Wilcoxon's signed-rank test and of the sign test (zeros left out), and the first after Holm's correction over
    all figures compared. verdict: of B."""

    name: str
    mean_a: float
    mean_b: float
    difference: Interval
    wilcoxon_p: float
    sign_p: float
    adjusted_p: float
    verdict: Verdict

    def in_words(self) -> str:
        """One line: the verdict, both means, the difference with its interval, the tests."""
        figure = figure_of(self.name)
        d = self.difference
        numbers = f"{self.mean_a:.3f} to {self.mean_b:.3f} {figure.unit}"
        if d.num >= 2:
            numbers += f" ({d.mean:+.3f}, {CONFIDENCE:.0%} from {d.low:+.3f} to {d.high:+.3f})"
        tests = f"{d.num} pairs, Wilcoxon p = {self.wilcoxon_p:.3g}, corrected {self.adjusted_p:.3g}"
        return f"{self.name}: {_WORDS[self.verdict]}; {numbers}; {tests}"


_WORDS: Mapping[Verdict, str] = {
    "better": "B is better than A",
    "worse": "B is worse than A",
    "different": "B differs from A, neither way is better",
    "undecided": "no difference is shown",
    "too few": f"too few pairs to say, it takes {MIN_PAIRS}",
}


def interval(values: Sequence[float] | F64) -> Interval:
    """Of one figure of several videos; NaN values (nobody was seen) are left out and not counted."""
    from scipy.stats import bootstrap

    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    if len(known) < 2:
        return Interval(
            float(known.mean()) if len(known) else float("nan"), float("nan"), float("nan"), len(known)
        )
    mean = float(known.mean())
    if np.ptp(known) == 0:
        return Interval(mean, mean, mean, len(known))
    low, high = float("nan"), float("nan")
    for method in ("BCa", "percentile"):  # BCa has no answer where leaving out one changes nothing
        if not np.isfinite([low, high]).all():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = bootstrap(
                    (known,),
                    np.mean,
                    n_resamples=RESAMPLES,
                    batch=100,  # flat memory for thousands of videos
                    confidence_level=CONFIDENCE,
                    method=method,
                    rng=np.random.default_rng(0),
                ).confidence_interval
            low, high = float(found.low), float(found.high)
    return Interval(mean, low, high, len(known))


def intervals(videos: Sequence[Mapping[str, float]]) -> dict[str, Interval]:
    """Of each figure that any video has, by name, over the videos that have it."""
    names = dict.fromkeys(name for row in videos for name in row)
    return {name: interval([row.get(name, float("nan")) for row in videos]) for name in names}


def compare(a: Mapping[str, Mapping[str, float]], b: Mapping[str, Mapping[str, float]]) -> list[Difference]:
    """Is B better than A? The figures of videos by a key that is the same for the same prompt and seed; only keys
    that both have, and figures that both know there, are compared.

    B is called better or worse only where the bootstrap interval of the difference leaves out 0 and the corrected
    Wilcoxon test agrees at 0.05.
    """
    keys = [key for key in a if key in b]
    names = dict.fromkeys(name for key in keys for name in a[key] if name in b[key])
    rows = [_difference(name, [(a[key].get(name), b[key].get(name)) for key in keys]) for name in names]
    return _corrected([row for row in rows if row.difference.num])


def _difference(name: str, pairs: Sequence[tuple[float | None, float | None]]) -> Difference:
    known = np.array([(x, y) for x, y in pairs if x is not None and y is not None], np.float64).reshape(-1, 2)
    known = known[np.isfinite(known).all(1)]
    away = known[:, 1] - known[:, 0]
    mean_a, mean_b = known.mean(0) if len(known) else (float("nan"), float("nan"))
    wilcoxon_p, sign_p = _tests(away)
    return Difference(
        name, float(mean_a), float(mean_b), interval(away), wilcoxon_p, sign_p, wilcoxon_p, "undecided"
    )


def _tests(away: F64) -> tuple[float, float]:
    """p of Wilcoxon's signed-rank and of the sign test; 1 where nothing differs."""
    from scipy.stats import binomtest, wilcoxon

    moved = away[away != 0]
    if not len(moved):
        return 1.0, 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ties among few pairs: scipy says that p is approximate
        signed_rank = float(wilcoxon(moved).pvalue)
    return signed_rank, float(binomtest(int((moved > 0).sum()), len(moved)).pvalue)


def _corrected(rows: Sequence[Difference]) -> list[Difference]:
    """With Holm's step-down correction of the Wilcoxon p, and the verdict that follows."""
    order = sorted(range(len(rows)), key=lambda k: rows[k].wilcoxon_p)
    adjusted, highest = [1.0] * len(rows), 0.0
    for rank, k in enumerate(order):
        highest = max(highest, min(1.0, rows[k].wilcoxon_p * (len(rows) - rank)))
        adjusted[k] = highest
    return [
        replace(row, adjusted_p=p, verdict=_verdict(row.difference, p, figure_of(row.name)))
        for row, p in zip(rows, adjusted, strict=True)
    ]


def _verdict(difference: Interval, adjusted_p: float, figure: Figure) -> Verdict:
    if difference.num < MIN_PAIRS:
        return "too few"
    if adjusted_p > SIGNIFICANT or difference.low <= 0 <= difference.high:
        return "undecided"
    if figure.better == "neither":
        return "different"
    return "better" if (difference.mean > 0) == (figure.better == "higher") else "worse"
