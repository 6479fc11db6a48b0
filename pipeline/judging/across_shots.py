"""Whether a character stays the same from shot to shot, however long it was away, and comes when the story says.

As EntityBench (arXiv 2605.15199) proposes with DINOv2 crops, only appearances that are the right person are
compared (its fidelity gate), so that a wrong face that never changes gains nothing; ours is gated and compared by a
face recogniser. The recurrence gap of two appearances is how many shots the later one comes after the earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_prep.records import F32, F64, I32, InputError
from pipeline.judging.drift import slope
from pipeline.judging.evaluate import Evaluation

MIN_PRESENT = 0.2  # share of a shot's frames in which somebody must be recognised to have appeared in it


@dataclass(frozen=True)
class Recurrence:
    """How like a character is to itself over G different gaps, by one recogniser, every pair of gated appearances
    counted once. gaps: i32[G] in shots, ascending; similarity: f64[G], mean cosine; num_pairs: i32[G]; mean: of all
    pairs; slope: least squares over all pairs, cosine per shot; both NaN where there are none, or one gap."""

    gaps: I32
    similarity: F64
    num_pairs: I32
    mean: float
    slope: float


@dataclass(frozen=True)
class AcrossShots:
    """One episode by one recogniser. gate: share of scheduled appearances that are the right person; precision,
    recall: of the appearances seen against the schedule, NaN where nothing was seen or scheduled."""

    pack: str
    recurrence: Recurrence
    gate: float
    precision: float
    recall: float


def across_shots(shots: Mapping[str, Evaluation], schedule: Mapping[str, Set[str]]) -> list[AcrossShots]:
    """Judge an episode, once per recogniser.

    shots: the evaluation of each shot in the order of the story, all against the same whole cast, so that somebody
    who is not scheduled is noticed; schedule: by shot who should be in it, names outside the cast (objects, places)
    are left out. Raises InputError for shots that the schedule does not know, and for different casts.
    """
    if unknown := [name for name in shots if name not in schedule]:
        raise InputError(
            f"schedule: nothing about shot {', '.join(unknown)}; it has {', '.join(schedule)}; name videos so."
        )
    evaluations = list(shots.values())
    if len({evaluation.cast for evaluation in evaluations}) > 1:
        raise InputError(
            "schedule: the shots were judged against different casts; give all of them one --cast."
        )
    cast = evaluations[0].cast
    planned = np.array([[name in schedule[shot] for name in cast] for shot in shots], bool)  # [S,N]
    return [_by_pack(evaluations, k, planned) for k in range(len(evaluations[0].scores))]


def episode_figures(episode: Sequence[AcrossShots]) -> dict[str, float]:
    """By the names of ``pipeline.judging.figures``."""
    found: dict[str, float] = {}
    for one in episode:
        found |= {
            f"shot_likeness/{one.pack}": one.recurrence.mean,
            f"shot_slope/{one.pack}": one.recurrence.slope,
            f"shot_gate/{one.pack}": one.gate,
            f"presence_precision/{one.pack}": one.precision,
            f"presence_recall/{one.pack}": one.recall,
        }
    return found


def _by_pack(evaluations: Sequence[Evaluation], k: int, planned: npt.NDArray[np.bool_]) -> AcrossShots:
    scores = [evaluation.scores[k] for evaluation in evaluations]
    appeared = np.stack([one.people.present for one in scores]) >= MIN_PRESENT  # [S,N]
    identities = np.stack([one.identity for one in scores])  # f32[S,N,D]
    right = planned & appeared & np.isfinite(identities[:, :, 0])
    return AcrossShots(
        pack=scores[0].pack,
        recurrence=recurrence(identities, right),
        gate=_share(right.sum(), planned.sum()),
        precision=_share((planned & appeared).sum(), appeared.sum()),
        recall=_share((planned & appeared).sum(), planned.sum()),
    )


def recurrence(identities: F32, right: npt.NDArray[np.bool_]) -> Recurrence:
    """identities: f32[S,N,D], unit rows by shot and character; right: bool[S,N], the appearances that count."""
    gaps, cosines = [], []
    for i in range(right.shape[1]):
        at = np.flatnonzero(right[:, i])
        for earlier, later in ((a, b) for a in at for b in at if a < b):
            gaps.append(int(later - earlier))
            cosines.append(float(identities[earlier, i] @ identities[later, i]))
    gap, cosine = np.asarray(gaps, np.int32), np.asarray(cosines, np.float64)
    different = np.unique(gap)
    return Recurrence(
        gaps=different,
        similarity=np.array([cosine[gap == g].mean() for g in different], np.float64),
        num_pairs=np.array([(gap == g).sum() for g in different], np.int32),
        mean=float(cosine.mean()) if len(cosine) else float("nan"),
        slope=slope(gap.astype(np.float64), cosine) if len(different) > 1 else float("nan"),
    )


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else float("nan")
