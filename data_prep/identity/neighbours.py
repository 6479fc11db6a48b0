"""Which clusters could be one person: of each the most similar others, exactly for some thousands, by faiss beyond.

Comparing all with all is quadratic: 100,000 clusters would be 10^13 multiplications. Beyond ``EXACT_ROWS`` a search
takes place in cells (an inverted file over k-means centroids, Jegou, Douze and Schmid, "Product quantization for
nearest neighbor search", TPAMI 2011, without the quantization), whose cosines are then computed exactly. What it
misses costs little: a pair of clusters is found when any two of their parts are, and linkage searches anew with
what it has merged. Seeded and on one thread, so that the same vectors give the same pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.records import F32

I64 = npt.NDArray[np.int64]

EXACT_ROWS = 8192  # 2 s of one core at 512 dimensions; the search in cells is faster from about here
BLOCK_ROWS = 1024  # rows compared at once: with 8,192 columns 32 MB
MOST = 64  # neighbours kept of a row; a person with more of them is merged from near to far, in rounds
ROUNDING = 1e-5  # of an f32 dot product: too many pairs by it, never too few
PROBES = 32  # cells searched for a row; see tests/bench/test_link_scale.py for what is found with it
POINTS_PER_CELL, ITERATIONS, SEED = 48, 8, 20240


@dataclass(frozen=True)
class Neighbours:
    """Pairs of rows, int64[P] each, first < second, ordered. complete: no pair at the threshold is missing."""

    first: I64
    second: I64
    complete: bool


def neighbours(means: F32, threshold: float) -> Neighbours:
    """Pairs of f32[C,D] whose dot product reaches the threshold, of each row at most the ``MOST`` nearest."""
    if len(means) <= EXACT_ROWS:
        rows, columns, complete = _compared(means, threshold)
    else:
        rows, columns = _searched(means, threshold)
        complete = False
    pairs = np.unique(np.minimum(rows, columns) * len(means) + np.maximum(rows, columns))
    return Neighbours(pairs // max(len(means), 1), pairs % max(len(means), 1), complete)


def _compared(means: F32, threshold: float) -> tuple[I64, I64, bool]:
    """Every row with every other."""
    rows, columns, complete = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], True
    for start in range(0, len(means), BLOCK_ROWS):
        cosines = means[start : start + BLOCK_ROWS] @ means.T
        places = np.arange(len(cosines))
        cosines[places, places + start] = -np.inf
        near = cosines >= threshold - ROUNDING
        for crowded in np.flatnonzero(near.sum(1) > MOST):
            complete = False
            near[crowded] = False
            near[crowded, np.argpartition(cosines[crowded], -MOST)[-MOST:]] = True
        row, column = np.nonzero(near)
        rows.append(row + start)
        columns.append(column)
    return np.concatenate(rows), np.concatenate(columns), complete


def _searched(means: F32, threshold: float) -> tuple[I64, I64]:
    """Every row with those of the cells nearest to it."""
    import faiss

    unit = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)
    rows, columns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    with _one_thread(faiss):
        index = _index(faiss, unit)
        for start in range(0, len(unit), BLOCK_ROWS):
            _, found = index.search(unit[start : start + BLOCK_ROWS], MOST + 1)
            row, place = np.nonzero(found >= 0)
            column = found[row, place]
            row = row + start
            cosines = np.einsum("nd,nd->n", means[row], means[column])
            near = (row != column) & (cosines >= threshold - ROUNDING)
            rows.append(row[near])
            columns.append(column[near].astype(np.int64))
    return np.concatenate(rows), np.concatenate(columns)


def _index(faiss: Any, unit: F32) -> Any:
    """An inverted file over about 2 * sqrt(C) cells, trained on some of the rows and filled with all."""
    cells = 2 * math.isqrt(len(unit))
    index = faiss.IndexIVFFlat(
        faiss.IndexFlatIP(unit.shape[1]), unit.shape[1], cells, faiss.METRIC_INNER_PRODUCT
    )
    index.cp.seed, index.cp.niter, index.cp.spherical = SEED, ITERATIONS, True
    index.cp.max_points_per_centroid = POINTS_PER_CELL
    index.train(unit)
    index.add(unit)
    index.nprobe = PROBES
    return index


@contextmanager
def _one_thread(faiss: Any) -> Iterator[None]:
    """How threads share the work may change the last bit of a sum, and with it what is found."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
