"""Linking a corpus of 100,000 tracks of 5,000 people: how right, how fast, in how much memory.

Nobody has such footage with its truth; ``tests/many_people.py`` draws embeddings with the measured statistics of
the embedded recogniser. Right is judged by pairs of tracks, also by those between sources alone, which are what
gives references from elsewhere. Run by ``make bench``; figures are printed.
"""

from __future__ import annotations

import resource
import time

import numpy as np
import pytest

from data_prep.identity.identities import cluster
from tests.many_people import ManyPeople, many_people, pair_scores

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

THRESHOLD = 0.4  # the embedded pack's
TRACKS, PEOPLE = 100_000, 5_000


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _linked(corpus: ManyPeople, max_chance: float) -> list[tuple[str, ...]]:
    start_s, before_mb = time.perf_counter(), _peak_mb()
    groups = cluster(corpus.tracks, corpus.must_not, THRESHOLD, max_chance)
    print(
        f"\n{len(corpus.tracks)} tracks of {len(np.unique(corpus.people))} people in "
        f"{len(np.unique(corpus.sources))} sources, max_chance={max_chance:g}: {len(groups)} characters, "
        f"{time.perf_counter() - start_s:.0f} s, {_peak_mb() - before_mb:.0f} MB above {before_mb:.0f} MB"
    )
    for name, between in (("all pairs", False), ("between sources", True)):
        precision, recall = pair_scores(groups, corpus, between)
        print(f"  {name}: precision {precision:.5f}, recall {recall:.5f}")
    return groups


@pytest.mark.parametrize("seed", [0])
def test_a_hundred_thousand_tracks(seed: int) -> None:
    corpus = many_people(TRACKS, PEOPLE, seed)
    before_mb = _peak_mb()
    groups = _linked(corpus, 0.01)
    assert (
        _peak_mb() - before_mb <= 5 * len(corpus.tracks) * 2048 / 1e6
    )  # embeddings, sums, unit rows, the index
    precision, recall = pair_scores(groups, corpus, between_sources=True)
    assert precision >= 0.999
    assert recall >= 0.99
    plain = pair_scores(_linked(corpus, 1.0), corpus, between_sources=True)
    assert plain[0] <= precision


def test_twice_the_tracks_of_twice_the_people_take_less_than_three_times_as_long() -> None:
    """All pairs would take four times."""
    times_s = []
    for scale in (1, 2):
        corpus = many_people(30_000 * scale, 1_500 * scale)
        start_s = time.perf_counter()
        cluster(corpus.tracks, corpus.must_not, THRESHOLD)
        times_s.append(time.perf_counter() - start_s)
    print(f"\n30,000 tracks {times_s[0]:.0f} s, 60,000 tracks {times_s[1]:.0f} s")
    assert times_s[1] <= 3 * times_s[0]
