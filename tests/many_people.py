"""A corpus of tracks of people that nobody filmed, with the statistics of real faces, for linking at scale.

The embedded recogniser's cosines on 191 real faces: strangers have the 99th percentile at .24 and a maximum of .355
in 18,000 pairs; one person across photos at least .41; within one video the 1st percentile is .62. A face here is
the sum of five parts, each drawn in the same 512 dimensions with unequal variances: who it is, what group of
look-alikes that person belongs to, how the source is lit, how the track stands, what changes from frame to frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_prep.identity.identities import TrackFaces
from data_prep.records import F32

DIM = 512
EFFECTIVE_DIM = 94  # strangers' cosines deviate by 1 / sqrt(94) = .103: 99th percentile .24
SHARES = {"person": 0.50, "group": 0.03, "source": 0.17, "track": 0.10, "face": 0.20}
MOST_FACES = 8  # of a track, whose mean is linked; at least one
GROUPS = 12


@dataclass(frozen=True)
class ManyPeople:
    """tracks ordered by id; people: int64[N] who each is; must_not: pairs of tracks of one clip."""

    tracks: list[TrackFaces]
    people: np.ndarray
    must_not: list[tuple[str, str]]

    @property
    def sources(self) -> np.ndarray:
        """int64[N]"""
        return np.unique([track.source_id for track in self.tracks], return_inverse=True)[1]


def many_people(num_tracks: int, num_people: int, seed: int = 0) -> ManyPeople:
    """Sources of some twenty tracks, in clips of one to three people; each person is in a few sources."""
    rng = np.random.default_rng(seed)
    draw = _Drawer(rng)
    people = draw(num_people, "person") + draw(GROUPS, "group")[rng.integers(0, GROUPS, num_people)]
    tracks, who, must_not = [], [], []
    source = 0
    while len(tracks) < num_tracks:
        here = rng.choice(num_people, int(rng.integers(1, 5)), replace=False)
        looks = {person: people[person] + draw(1, "source")[0] for person in here}
        for clip in range(8):
            seen = rng.permutation(here)[: int(rng.integers(1, 4))]
            ids = [f"s{source:06d}-{clip}-t{at}" for at in range(len(seen))]
            faces = np.stack([looks[person] for person in seen]) + draw(len(seen), "track")
            faces += draw(len(seen), "face") / np.sqrt(rng.integers(1, MOST_FACES + 1, (len(seen), 1)))
            faces /= np.linalg.norm(faces, axis=1, keepdims=True)
            tracks += [TrackFaces(i, f"s{source:06d}", f.copy()) for i, f in zip(ids, faces, strict=True)]
            who += seen.tolist()
            must_not += [(a, b) for at, a in enumerate(ids) for b in ids[at + 1 :]]
        source += 1
    return ManyPeople(tracks, np.array(who), must_not)


class _Drawer:
    def __init__(self, rng: np.random.Generator) -> None:
        decay = _decay()
        self._rng = rng
        self._deviation = np.sqrt(decay / decay.sum()).astype(np.float32)

    def __call__(self, count: int, part: str) -> F32:
        noise = self._rng.standard_normal((count, DIM), np.float32)
        return np.asarray(noise * self._deviation * np.sqrt(SHARES[part]), np.float32)


def _decay() -> np.ndarray:
    """f64[512] variances i^-a whose sum squared over the sum of squares is EFFECTIVE_DIM."""
    low, high = 0.0, 2.0
    at = np.arange(1, DIM + 1)
    while high - low > 1e-6:
        middle = (low + high) / 2
        variances = at**-middle
        if variances.sum() ** 2 / (variances**2).sum() > EFFECTIVE_DIM:
            low = middle
        else:
            high = middle
    return at**-low


def pair_scores(
    groups: list[tuple[str, ...]], corpus: ManyPeople, between_sources: bool
) -> tuple[float, float]:
    """Precision and recall over pairs of tracks said to be one person; ``between_sources``: those alone."""
    place = {track.id: at for at, track in enumerate(corpus.tracks)}
    said = np.empty(len(corpus.tracks), np.int64)
    for number, group in enumerate(groups):
        said[[place[track] for track in group]] = number
    source = corpus.sources
    both = _pairs(said, corpus.people) - (_pairs(said, corpus.people, source) if between_sources else 0)
    claimed = _pairs(said) - (_pairs(said, source) if between_sources else 0)
    true = _pairs(corpus.people) - (_pairs(corpus.people, source) if between_sources else 0)
    return both / max(claimed, 1), both / max(true, 1)


def _pairs(*labels: np.ndarray) -> int:
    """Pairs of places that agree in all labels."""
    counts = np.unique(np.stack(labels), axis=1, return_counts=True)[1].astype(np.int64)
    return int((counts * (counts - 1) // 2).sum())
