"""Several videos of one cast, say several seeds, as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np

from data_prep.records import U8, InputError
from pipeline.judging.evaluate import Evaluation, Scores, mean_over_first

Record = TypeVar("Record")


def mean_of(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The mean over videos of every number, NaN left out; ``own`` is one video after the other, ``faces`` the
    likest of all. Raises InputError where the casts differ."""
    first = evaluations[0]
    if any(other.cast != first.cast for other in evaluations):
        raise InputError("evaluate: the videos have different casts; a mean over them says nothing.")
    scores = [_scores([e.scores[k] for e in evaluations]) for k in range(len(first.scores))]
    return Evaluation(
        cast=first.cast,
        num_frames=sum(evaluation.num_frames for evaluation in evaluations),
        num_faces=float(np.mean([evaluation.num_faces for evaluation in evaluations])),
        located_by=first.located_by,
        scores=tuple(scores),
        liveliness=_mean([e.liveliness for e in evaluations]),
        pixels=_mean([e.pixels for e in evaluations]),
        faces=_likest(evaluations),
    )


def without_faces(evaluation: Evaluation) -> Evaluation:
    """The same without pictures, of which many videos would hold too many."""
    return replace(evaluation, faces=np.zeros((0, 112, 112, 3), np.uint8))


def _scores(same_pack: Sequence[Scores]) -> Scores:
    return replace(
        _mean([replace(s, own=s.own[:0]) for s in same_pack]), own=np.concatenate([s.own for s in same_pack])
    )


def _mean(records: Sequence[Record]) -> Record:
    """A record of numbers, arrays, texts (the first's) and records of the same, field by field."""
    merged: dict[str, Any] = {}
    for field in fields(records[0]):  # type: ignore[arg-type]
        values = [getattr(record, field.name) for record in records]
        if is_dataclass(values[0]):
            merged[field.name] = _mean(values)
        elif isinstance(values[0], str):
            merged[field.name] = values[0]
        else:
            mean = mean_over_first(np.stack([np.asarray(value, np.float64) for value in values]))
            merged[field.name] = mean if isinstance(values[0], np.ndarray) else float(mean)
    return type(records[0])(**merged)


def _likest(evaluations: Sequence[Evaluation]) -> U8:
    """u8[N,112,112,3], of those that still have pictures."""
    shown = [e for e in evaluations if len(e.faces)]
    if not shown:
        return np.zeros((0, 112, 112, 3), np.uint8)
    likeness = np.stack([np.nan_to_num(e.scores[0].own, nan=-1.0).max(0) for e in shown])
    return np.stack([shown[v].faces[i] for i, v in enumerate(likeness.argmax(0))])
