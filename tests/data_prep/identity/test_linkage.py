"""Average linkage on near pairs, against one that compares all pairs of all clusters at every step."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from data_prep.identity import neighbours as search
from data_prep.identity.linkage import average_linkage
from data_prep.identity.neighbours import Neighbours, neighbours
from data_prep.records import F32

Group = frozenset[int]


def unit_rows(rng: np.random.Generator, count: int, dim: int) -> F32:
    rows = rng.normal(size=(count, dim)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def slow_linkage(
    vectors: F32,
    groups: Sequence[tuple[int, ...]],
    apart: Mapping[int, set[int]],
    threshold: float,
    kept: Sequence[bool],
) -> set[Group]:
    """Averages from the definition; the most similar allowed pair first."""
    exact = vectors.astype(np.float64)
    keeps = {frozenset(group): keep for group, keep in zip(groups, kept, strict=True)}
    while True:
        best: tuple[float, Group, Group] | None = None
        for one, other in itertools.combinations(keeps, 2):
            if any(b in apart.get(a, ()) for a in one for b in other) or (keeps[one] and keeps[other]):
                continue
            average = float(np.mean([exact[a] @ exact[b] for a in one for b in other]))
            if average >= threshold and (best is None or average > best[0]):
                best = average, one, other
        if best is None:
            return set(keeps)
        _, one, other = best
        keeps[one | other] = keeps.pop(one) or keeps.pop(other)


@pytest.mark.parametrize("seed", range(12))
def test_the_groups_are_those_of_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = unit_rows(rng, 22, 6)
    groups = [(0, 7), (3, 4, 5), *((at,) for at in (1, 2, 6, *range(8, 22)))]
    kept = [True, True] + [bool(rng.random() < 0.2) for _ in groups[2:]]
    apart: dict[int, set[int]] = {}
    owner = {at: number for number, group in enumerate(groups) for at in group}
    for one, other in itertools.combinations(range(22), 2):
        if rng.random() < 0.06 and owner[one] != owner[other]:
            apart.setdefault(one, set()).add(other)
            apart.setdefault(other, set()).add(one)
    found = {frozenset(g) for g in average_linkage(vectors, groups, apart, 0.25, kept)}
    assert found == slow_linkage(vectors, groups, apart, 0.25, kept)
    assert len(found) < len(groups)


def test_someone_with_more_tracks_than_neighbours_are_kept_becomes_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "MOST", 4)
    rng = np.random.default_rng(0)
    people = np.repeat(unit_rows(rng, 5, 64), 60, axis=0)
    vectors = people + 0.5 * unit_rows(rng, 300, 64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = average_linkage(vectors, [(at,) for at in range(300)], {}, 0.5)
    assert {frozenset(g) for g in found} == {frozenset(range(s, s + 60)) for s in range(0, 300, 60)}


def test_pairs_are_all_that_reach_the_threshold_and_no_other() -> None:
    vectors = unit_rows(np.random.default_rng(1), 200, 12)
    found = neighbours(vectors, 0.6)
    exact = vectors.astype(np.float64) @ vectors.T
    expected = [(a, b) for a, b in itertools.combinations(range(200), 2) if exact[a, b] >= 0.6]
    assert found.complete
    assert list(zip(found.first, found.second, strict=True)) == expected


@pytest.fixture(scope="module")
def searched() -> tuple[F32, Neighbours]:
    """Twenty tracks each of 150 people, searched in cells as a corpus of many would be."""
    rng = np.random.default_rng(2)
    vectors = np.repeat(unit_rows(rng, 150, 128), 20, axis=0) + 0.8 * unit_rows(rng, 3000, 128)
    vectors = np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "EXACT_ROWS", 1000)
        return vectors, neighbours(vectors, 0.4)


def test_what_faiss_finds_is_near_and_nearly_all(searched: tuple[F32, Neighbours]) -> None:
    vectors, found = searched
    exact = vectors @ vectors.T
    assert (exact[found.first, found.second] >= 0.4 - search.ROUNDING).all()
    assert not found.complete
    expected = int((np.triu(exact, 1) >= 0.4).sum())
    assert len(found.first) >= 0.95 * expected


def test_the_search_gives_the_same_pairs_again(
    searched: tuple[F32, Neighbours], monkeypatch: pytest.MonkeyPatch
) -> None:
    import faiss

    monkeypatch.setattr(search, "EXACT_ROWS", 1000)
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    try:
        again = neighbours(searched[0], 0.4)
        assert faiss.omp_get_max_threads() == 2
    finally:
        faiss.omp_set_num_threads(before)
    np.testing.assert_array_equal(again.first, searched[1].first)
    np.testing.assert_array_equal(again.second, searched[1].second)


def test_linkage_of_a_search_is_that_of_all_pairs(
    searched: tuple[F32, Neighbours], monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, _ = searched
    alone = [(at,) for at in range(len(vectors))]
    expected = {frozenset(g) for g in average_linkage(vectors, alone, {}, 0.4)}
    monkeypatch.setattr(search, "EXACT_ROWS", 1000)
    assert {frozenset(g) for g in average_linkage(vectors, alone, {}, 0.4)} == expected


def test_nothing_has_no_neighbours() -> None:
    assert len(neighbours(np.zeros((0, 5), np.float32), 0.4).first) == 0
    assert average_linkage(np.zeros((0, 5), np.float32), [], {}, 0.4) == []
