"""Average linkage under cannot-link, on the pairs that are near instead of all pairs.

Two clusters are merged while the average cosine of their tracks reaches the threshold, the most similar allowed
pair of all first. That average is the dot product of the clusters' mean vectors, so a cluster is kept as a sum and
a count. It cannot reach the threshold unless some pair of parts does, therefore only such pairs are looked at:
with all of them (``Neighbours.complete``) the result is that of the full matrix, in memory that grows with the near
pairs and not with the square of the tracks. With some left out, what was merged is searched again until nothing is
near.

Each cluster has one entry in a heap, its most similar allowed neighbour. An entry whose neighbour was merged
meanwhile is only renewed when it comes up: a merged cluster is at most as similar to a third as its better half was
(the average lies between), so no entry promises too little.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

import numpy as np

from data_prep.identity.neighbours import I64, neighbours
from data_prep.records import F32

DIGITS = 6  # of a cosine in f32; pairs that are equal to it are taken in order, whatever the last bits say

Groups = list[tuple[int, ...]]
_Entry = tuple[float, int, int, int, int]  # minus cosine, cluster, neighbour, and the age of both


def average_linkage(
    vectors: F32,
    groups: Sequence[tuple[int, ...]],
    apart: Mapping[int, set[int]],
    threshold: float,
    kept: Sequence[bool] = (),
) -> Groups:
    """Groups of rows of ``vectors`` (f32[N,D], unit), merged from the ones given.

    Args:
        vectors: one per track.
        groups: rows that are one person already; no row twice.
        apart: by row, the rows that are another person.
        threshold: least average cosine of what is merged.
        kept: by group, whether it is to stay apart from all others of these; empty: none is.
    """
    forest = _Forest(vectors, groups, apart, kept)
    while True:
        alive = forest.alive()
        found = neighbours(forest.means(alive), threshold)
        merged = forest.merge(alive[found.first], alive[found.second], threshold)
        if found.complete or not merged:
            return [forest.members[at] for at in forest.alive()]


class _Forest:
    """C clusters by number. A merged cluster goes on under the lower number of the two."""

    def __init__(
        self,
        vectors: F32,
        groups: Sequence[tuple[int, ...]],
        apart: Mapping[int, set[int]],
        kept: Sequence[bool],
    ) -> None:
        count = len(groups)
        self.members = list(groups)
        self._sums = np.zeros((count, vectors.shape[1]), np.float32)
        for at, group in enumerate(groups):
            self._sums[at] = vectors[list(group)].sum(0, dtype=np.float64)
        self._sizes = np.array([len(group) for group in groups], np.float64)
        self._kept = list(kept) or [False] * count
        self._age = [0] * count  # how often it was merged; -1: it is gone
        self._home = np.arange(count)  # where a number's tracks are now
        self._was = [[at] for at in range(count)]  # the numbers that a cluster took in
        self._near: list[I64] = []
        self._apart = _between_groups(groups, apart)

    def alive(self) -> I64:
        return np.flatnonzero(np.array(self._age) >= 0)

    def means(self, clusters: I64) -> F32:
        return np.asarray(self._sums[clusters] / self._sizes[clusters, None], np.float32)

    def merge(self, first: I64, second: I64, threshold: float) -> int:
        """Merge along the pairs given, and those that follow from them; how often."""
        self._near = _adjacency(first, second, len(self.members))
        heap = [entry for at in np.unique(first).tolist() if (entry := self._best(at, threshold))]
        heap += [
            entry
            for at in np.setdiff1d(second, first).tolist()
            if (entry := self._best(at, threshold)) is not None
        ]
        heapq.heapify(heap)
        merged = 0
        while heap:
            _, one, other, age, other_age = heapq.heappop(heap)
            if age != self._age[one]:
                continue  # gone, or has a newer entry
            if other_age == self._age[other]:
                one = self._join(min(one, other), max(one, other))
                merged += 1
            entry = self._best(one, threshold)
            if entry is not None:
                heapq.heappush(heap, entry)
        return merged

    def _best(self, one: int, threshold: float) -> _Entry | None:
        """The entry of a cluster: its most similar neighbour that it may be merged with."""
        near = np.unique(self._home[self._near[one]])
        near = self._near[one] = near[near != one]
        cosines = (self._sums[near] @ self._sums[one]).astype(np.float64)
        cosines /= self._sizes[near] * self._sizes[one]
        reached = np.flatnonzero(cosines >= threshold)
        rounded = np.round(cosines[reached], DIGITS)
        for at in np.lexsort((near[reached], -rounded)).tolist():
            other = int(near[reached[at]])
            if other not in self._apart[one] and not (self._kept[one] and self._kept[other]):
                return -float(rounded[at]), one, other, self._age[one], self._age[other]
        return None

    def _join(self, one: int, other: int) -> int:
        """Cluster ``other`` becomes part of ``one``."""
        self._sums[one] += self._sums[other]
        self._sizes[one] += self._sizes[other]
        self.members[one] += self.members[other]
        self._kept[one] = self._kept[one] or self._kept[other]
        self._home[self._was[other]] = one
        self._was[one] += self._was[other]
        self._near[one] = np.concatenate([self._near[one], self._near[other]])
        for enemy in self._apart[other]:
            self._apart[enemy].discard(other)
            self._apart[enemy].add(one)
        self._apart[one] |= self._apart[other]
        self._age[one], self._age[other] = self._age[one] + 1, -1
        return one


def _adjacency(first: I64, second: I64, count: int) -> list[I64]:
    """By cluster, those it makes a pair with."""
    one, other = np.concatenate([first, second]), np.concatenate([second, first])
    order = np.argsort(one, kind="stable")
    return np.split(other[order], np.searchsorted(one[order], np.arange(1, count)))


def _between_groups(groups: Sequence[tuple[int, ...]], apart: Mapping[int, set[int]]) -> list[set[int]]:
    """By group, the groups that hold a track which one of its own must not be linked with."""
    owner = {row: at for at, group in enumerate(groups) for row in group}
    between: list[set[int]] = [set() for _ in groups]
    for row, at in owner.items():
        between[at] |= {owner[other] for other in apart.get(row, ()) if other in owner} - {at}
    return between
