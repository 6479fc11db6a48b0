"""An evaluation as plain values and back: what evaluation.json holds of one video, and what a resumed run reads.

Arrays are nested lists, null stands for what was not seen, and each record is an object with its fields' names.
Embeddings are biometric data and pictures are large: neither is among the plain values.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np

from data_prep.records import F32, F64, Json
from pipeline.judging.confusion import Counts
from pipeline.judging.copying import Copying, PixelCopying
from pipeline.judging.drift import Drift
from pipeline.judging.evaluate import Evaluation, Scores
from pipeline.judging.figures import character_figures, figures
from pipeline.judging.liveliness import Liveliness

Record = TypeVar("Record")
NESTED = {"people": Counts, "drift": Drift, "copying": Copying}
RENAMED = {"own": "own_by_frame"}


def as_json(evaluation: Evaluation) -> Json:
    """Plain values: matrices as lists of rows, null for what was not seen; ``figures`` and ``characters`` are
    those of ``pipeline.judging.figures``."""
    return {
        "cast": list(evaluation.cast),
        "num_frames": evaluation.num_frames,
        "faces_per_frame": evaluation.num_faces,
        "located_by": evaluation.located_by,
        "figures": plain(figures(evaluation)),
        "characters": plain(character_figures(evaluation)),
        "scores": [_scores_as_json(scores) for scores in evaluation.scores],
        "liveliness": _record_as_json(evaluation.liveliness),
        "pixels": _record_as_json(evaluation.pixels),
    }


def arrays_of(evaluation: Evaluation) -> dict[str, Any]:
    """What ``as_json`` leaves out: the likest faces, and by recogniser the identities."""
    return {"faces": evaluation.faces} | {f"identity_{s.pack}": s.identity for s in evaluation.scores}


def from_json(row: Json, arrays: dict[str, Any]) -> Evaluation:
    """What ``as_json`` and ``arrays_of`` took apart, numbers rounded to six places."""
    scores = [
        _scores_from_json(one, arrays[f"identity_{one['pack']}"], len(row["cast"])) for one in row["scores"]
    ]
    return Evaluation(
        cast=tuple(row["cast"]),
        num_frames=row["num_frames"],
        num_faces=row["faces_per_frame"],
        located_by=row["located_by"],
        scores=tuple(scores),
        liveliness=_record_from_json(Liveliness, row["liveliness"]),
        pixels=_record_from_json(PixelCopying, row["pixels"]),
        faces=arrays["faces"],
    )


def plain(values: Any) -> Any:
    """Nested lists and objects of floats rounded to six places, None for NaN."""
    if isinstance(values, dict):
        return {name: plain(value) for name, value in values.items()}
    if isinstance(values, str | int):
        return values
    if np.ndim(values):
        return [plain(row) for row in values]
    return round(float(values), 6) if math.isfinite(values) else None


def _scores_as_json(scores: Scores) -> Json:
    content: Json = {}
    for field in fields(scores):
        value = getattr(scores, field.name)
        if field.name != "identity":
            is_nested = field.name in NESTED
            content[RENAMED.get(field.name, field.name)] = (
                _record_as_json(value) if is_nested else plain(value)
            )
    return content


def _scores_from_json(row: Json, identity: F32, num_cast: int) -> Scores:
    nested: dict[str, Any] = {name: _record_from_json(kind, row[name]) for name, kind in NESTED.items()}
    numbers: dict[str, Any] = {}
    for field in fields(Scores):
        if field.name not in NESTED and field.name not in ("identity", "pack"):
            numbers[field.name] = _number(row[RENAMED.get(field.name, field.name)])
    scores = Scores(pack=row["pack"], identity=identity, **numbers, **nested)
    return replace(scores, own=scores.own.reshape(-1, num_cast))


def _record_as_json(record: Any) -> Json:
    return {field.name: plain(getattr(record, field.name)) for field in fields(record)}


def _record_from_json(kind: type[Record], row: Json) -> Record:
    return kind(**{field.name: _number(row[field.name]) for field in fields(kind)})  # type: ignore[arg-type]


def _number(value: Any) -> F64 | float:
    """A list as an array, null as NaN."""
    return (
        np.array(value, np.float64)
        if isinstance(value, list)
        else float("nan")
        if value is None
        else float(value)
    )


def flatten(content: Json) -> dict[str, float]:
    """The means of a whole evaluation.json by figure name, over all its videos; NaN where nothing was seen. Those
    across shots are there where a schedule was given."""
    found = {name: _as_float(row["mean"]) for name, row in content["figures"].items()}
    return found | {
        name: _as_float(value) for name, value in (content.get("episode") or {}).get("figures", {}).items()
    }


def by_video(content: Json) -> dict[str, dict[str, float]]:
    """The figures of each video of an evaluation.json, by the video's key."""
    return {
        row["key"]: {name: _as_float(value) for name, value in row["figures"].items()}
        for row in content["videos"]
    }


def _as_float(value: float | None) -> float:
    return float("nan") if value is None else float(value)
