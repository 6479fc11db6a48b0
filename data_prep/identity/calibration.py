"""The cosine from which two tracks are one person, measured on the corpus itself, with its error rates.

Nobody has labelled the corpus, but it labels some pairs itself: the first and the last third of one track are one
person, and two faces in one frame are two. Their cosines are only counted, so that memory does not grow with them.

Two things may raise the threshold above the face pack's own. Faces seen together that pass too often: people who
look alike to this recogniser. And the size of the corpus: of 15,000 clusters each meets 15,000 others, and a cosine
that one pair of strangers in 100,000 reaches joins many of them to somebody. How often strangers reach a cosine is
estimated from clusters of different sources, nearly all of which are different people.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from data_prep.config import LinkConfig
from data_prep.identity.neighbours import I64
from data_prep.records import F32, F64, Calibration, FaceTrack, Json

CALIBRATION = "calibration.json"
FACES = 8  # per track and end; all pairs would be quadratic in the track's length
STEPS = 1000  # counts of cosines per unit: 0.001 wide
CURVE_EVERY = 10  # of them, in the file: 0.01
FEWEST_PAIRS = 100  # of tracks seen together, before their faces may raise the threshold
FEWEST_CLUSTERS = 50  # before strangers' cosines can be told
SAMPLED_PAIRS = 200_000
LOW, QUARTER = 0.025, 0.25  # quantiles below the middle: the same person in two sources cannot reach them


class Observed:
    """Cosines of faces, counted: of one person (same track, far apart) and of two (seen in one frame)."""

    def __init__(self) -> None:
        self._same = np.zeros(2 * STEPS + 2, np.int64)
        self._different = np.zeros(2 * STEPS + 2, np.int64)
        self.num_seen_together = 0  # pairs of tracks

    def add(self, tracks: Sequence[FaceTrack], must_not: Sequence[tuple[str, str]], min_norm: float) -> None:
        """The tracks of one clip, and the pairs of them that were seen in one frame."""
        ends = {track.id: faces for track in tracks if (faces := _ends(track, min_norm)) is not None}
        for early, late in ends.values():
            if len(early) > 1:
                _count(self._same, early @ late.T)
        for one, other in must_not:
            if one in ends and other in ends:
                self.num_seen_together += 1
                _count(self._different, ends[one][0] @ ends[other][1].T)

    def false_accept(self, threshold: float) -> float:
        """Share of the pairs of two people at or above a threshold, to 0.001; NaN where there is none."""
        return _share(self._different[_step(threshold) :].sum(), self._different.sum())

    def false_reject(self, threshold: float) -> float:
        """Share of the pairs of one person below a threshold, to 0.001; NaN where there is none."""
        return _share(self._same[: _step(threshold)].sum(), self._same.sum())

    def raised(self, threshold: float, config: LinkConfig) -> float:
        """The lowest threshold, from the one given upwards, at which no more than ``max_false_accept`` of faces
        seen together pass. The one given stays where that would refuse more than ``max_false_reject`` of one
        person's faces (mirrors and pictures of people who are there make pairs that no threshold separates), or
        where fewer than ``FEWEST_PAIRS`` pairs of tracks were seen together."""
        if self.num_seen_together < max(FEWEST_PAIRS, 1 / max(config.max_false_accept, 1e-9)):
            return threshold
        for step in range(_step(threshold), 2 * STEPS + 1):
            at = max(threshold, step / STEPS - 1)
            if self.false_reject(at) > config.max_false_reject:
                break
            if self.false_accept(at) <= config.max_false_accept:
                return round(at, 3) if at > threshold else threshold
        return threshold

    def measured(self, pack: str, base: float, threshold: float, corpus_threshold: float) -> Calibration:
        """The error rates of a threshold; base: where it was before the corpus raised it."""
        return Calibration(
            pack=pack,
            threshold=threshold,
            false_accept=self.false_accept(threshold),
            false_reject=self.false_reject(threshold),
            num_positive=int(self._same.sum()),
            num_negative=int(self._different.sum()),
            base_threshold=base,
            corpus_threshold=corpus_threshold,
            curve=self._curve(),
        )

    def _curve(self) -> tuple[tuple[float, float, float], ...]:
        """Cosine, false accepts and false rejects, from the lowest cosine counted to the highest."""
        counted = np.flatnonzero(self._same + self._different)
        if not len(counted):
            return ()
        first = counted[0] // CURVE_EVERY * CURVE_EVERY
        at = [step / STEPS - 1 for step in range(first, int(counted[-1]) + CURVE_EVERY + 1, CURVE_EVERY)]
        return tuple(
            (round(cosine, 3), self.false_accept(cosine), self.false_reject(cosine)) for cosine in at
        )


def chance_threshold(means: F32, sources: Sequence[str], threshold: float, max_chance: float) -> float:
    """The cosine at which a cluster meets less than ``max_chance`` strangers by chance, at least ``threshold``.

    Strangers' cosines are taken as normal, with mean and deviation from the 2.5th and 25th percentile of pairs of
    clusters (rows of f32[C,D], whose dot product is their average cosine) from different sources: what lies above
    the middle may be the same person. On a sphere the true tail is thinner, so the estimate is on the safe side.
    """
    count = len(means)
    if count < FEWEST_CLUSTERS or max_chance >= 1:
        return threshold
    cosines = _strangers(means, np.unique(np.asarray(sources), return_inverse=True)[1])
    if len(cosines) < FEWEST_CLUSTERS:
        return threshold
    low, quarter = np.quantile(cosines, [LOW, QUARTER])
    deviation = (quarter - low) / (ndtri(QUARTER) - ndtri(LOW))
    mean = quarter - deviation * ndtri(QUARTER)
    return round(max(threshold, float(mean - deviation * ndtri(max_chance / count))), 3)


def write(folder: Path, calibration: Calibration) -> None:
    """``calibration.json``: the thresholds in force, how often they are wrong, and the same for every threshold."""
    text = json.dumps(as_json(calibration) | {"curve": _curve_json(calibration)}, indent=1)
    (folder / CALIBRATION).write_text(text + "\n", encoding="utf-8")


def as_json(calibration: Calibration) -> Json:
    """All but the curve, None where there was nothing to measure."""
    found = asdict(calibration)
    del found["curve"]
    return {name: _finite(value) for name, value in found.items()}


def _curve_json(calibration: Calibration) -> list[Json]:
    return [
        {"threshold": at, "false_accept": _finite(accept), "false_reject": _finite(reject)}
        for at, accept, reject in calibration.curve
    ]


def _finite(value: object) -> object:
    if not isinstance(value, float):
        return value
    return None if math.isnan(value) else round(value, 6)


def _ends(track: FaceTrack, min_norm: float) -> tuple[F32, F32] | None:
    """Unit rows f32[<=8,D] from the first and from the last third of the usable faces."""
    usable = np.flatnonzero(track.embedded & (track.norms >= min_norm))
    if not len(usable):
        return None
    third = max(1, len(usable) // 3)
    return track.embeddings[usable[:third][:FACES]], track.embeddings[usable[-third:][-FACES:]]


def _count(counts: I64, cosines: F32) -> None:
    places = np.floor((cosines.ravel().astype(np.float64) + 1) * STEPS + 1e-3).astype(np.int64)
    np.add.at(counts, np.clip(places, 0, len(counts) - 1), 1)


def _step(threshold: float) -> int:
    """The first count that is at or above a threshold."""
    return min(max(math.ceil((threshold + 1) * STEPS - 1e-3), 0), 2 * STEPS + 1)


def _share(part: npt.ArrayLike, whole: npt.ArrayLike) -> float:
    return float(part) / float(whole) if whole else math.nan  # type: ignore[arg-type]


def _strangers(means: F32, source: I64) -> F64:
    """Cosines of clusters of different sources: all pairs of a small corpus, some of a large one."""
    count = len(means)
    if count * (count - 1) // 2 <= SAMPLED_PAIRS:
        one, other = np.triu_indices(count, 1)
    else:
        one, other = np.random.default_rng(0).integers(0, count, (2, SAMPLED_PAIRS))
    apart = source[one] != source[other]
    one, other = one[apart], other[apart]
    blocks = range(0, len(one), 4096)
    found = [np.einsum("nd,nd->n", means[one[at : at + 4096]], means[other[at : at + 4096]]) for at in blocks]
    return np.concatenate([np.zeros(0, np.float32), *found]).astype(np.float64)
