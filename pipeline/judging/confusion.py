"""Who was taken for whom over time: swaps, switches, and people who are missing or too many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_prep.records import F64, I32

NOBODY = -1


@dataclass(frozen=True)
class Counts:
    """People per frame against the cast, wherever they are. present: f64[N], share of frames in which some face is
    recognised as i; missing, duplicates, strangers: mean number per frame of members that no face is recognised
    as, of further faces recognised as somebody who is there already, and of faces recognised as nobody."""

    present: F64
    missing: float
    duplicates: float
    strangers: float


def recognised_as(similarity: F64, same_person: float) -> I32:
    """int32[n]: of each face, whom of the cast it is likest, or NOBODY below the threshold; from f64[n,N]."""
    if not len(similarity):
        return np.zeros(0, np.int32)
    return np.where(similarity.max(1) >= same_person, similarity.argmax(1), NOBODY).astype(np.int32)


def count_people(identities: Sequence[I32], num_cast: int) -> Counts:
    """From ``recognised_as`` of each of T ≥ 1 frames."""
    heads = np.stack([np.bincount(of[of >= 0], minlength=num_cast) for of in identities])  # [T,N]
    return Counts(
        present=np.asarray((heads > 0).mean(0), np.float64),
        missing=float((heads == 0).sum(1).mean()),
        duplicates=float(np.maximum(heads - 1, 0).sum(1).mean()),
        strangers=float(np.mean([(of == NOBODY).sum() for of in identities])),
    )


def switches_per_1000(identities: Sequence[I32], tracks: Sequence[I32]) -> float:
    """How often the face of a track is recognised as another of the cast than it last was, per 1,000 frames.
    (Identity switches as multi-object tracking counts them: Bernardin & Stiefelhagen 2008, eq. 2, IDSW.)"""
    last: dict[int, int] = {}
    switches = 0
    for of, mine in zip(identities, tracks, strict=True):
        for identity, track in zip(of.tolist(), mine.tolist(), strict=True):
            if identity != NOBODY:
                switches += last.get(track, identity) != identity
                last[track] = identity
    return 1000 * switches / len(identities)


def misplaced(rows: F64) -> F64:
    """f64[T,N]: 1 where the face at i looks most like another of the cast, NaN where none is seen; rows f64[T,N,N]:
    frame, face at i, references of j."""
    unseen = np.isnan(rows[:, :, 0])
    closest = np.where(np.isnan(rows), -np.inf, rows).argmax(2)
    return np.where(unseen, np.nan, closest != np.arange(rows.shape[1]))


def changed(who: Sequence[I32], tracks: Sequence[I32]) -> F64:
    """f64[T,N]: 1 where the face given to i is of a track that mostly was another's, NaN where none is seen."""
    num_tracks = 1 + max((int(mine.max()) for mine in tracks if len(mine)), default=0)
    votes: npt.NDArray[np.int64] = np.zeros((num_tracks, len(who[0])), np.int64)
    for face_of, mine in zip(who, tracks, strict=True):
        for i in np.flatnonzero(face_of >= 0):
            votes[mine[face_of[i]], i] += 1
    owner = votes.argmax(1)
    found = np.full((len(who), len(who[0])), np.nan)
    for t, (face_of, mine) in enumerate(zip(who, tracks, strict=True)):
        for i in np.flatnonzero(face_of >= 0):
            found[t, i] = float(owner[mine[face_of[i]]] != i)
    return found
