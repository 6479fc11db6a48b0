"""The figures of an evaluation by name: what each says, in which unit, and which way is better.

A name is FIGURE, or FIGURE/PACK where a recogniser says it (FaceSim-Arc's and FaceSim-Cur's roles are
``likeness/embedded`` and ``likeness/embedded_alt``). The names and their meaning do not change; new ones are added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from data_prep.records import F64
from pipeline.judging.evaluate import Evaluation, Scores

Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True)
class Figure:
    """unit: of its values; better: which way is; says: one sentence; by_pack: whether a recogniser says it."""

    unit: str
    better: Better
    says: str
    by_pack: bool = True


FIGURES: Mapping[str, Figure] = {
    "likeness": Figure("cosine", "higher", "How like the faces at a character are to its references."),
    "likeness_lowest": Figure("cosine", "higher", "The same of the character that is least like."),
    "bleed": Figure("cosine", "lower", "How like the faces at a character are to the others' references."),
    "margin": Figure("cosine", "higher", "Likeness minus the best other's, mean of the cast."),
    "margin_lowest": Figure(
        "cosine", "higher", "The same of the character with the least; above 0: no bleed."
    ),
    "coverage": Figure("share", "higher", "Frames with some face at the character."),
    "recognised": Figure("share", "higher", "Of all frames, those in which the face at it is the character."),
    "swap_rate": Figure("share", "lower", "Of the faces at a character, those that are another of the cast."),
    "switches": Figure(
        "per 1,000 frames", "lower", "Faces that stay in place and become another of the cast."
    ),
    "present": Figure("share", "higher", "Frames in which a face is recognised as the character, wherever."),
    "missing": Figure("people per frame", "lower", "Members of the cast that no face is recognised as."),
    "duplicates": Figure("people per frame", "lower", "Further faces of somebody who is there already."),
    "strangers": Figure("people per frame", "lower", "Faces that are nobody of the cast."),
    "steadiness": Figure("cosine", "higher", "Likeness of a face to itself in the frame looked at before."),
    "steadiness_slope": Figure("cosine per 100 frames", "higher", "How that changes as the video goes on."),
    "likeness_slope": Figure(
        "cosine per 100 frames", "higher", "How likeness changes; below 0: it drifts away."
    ),
    "copy_excess": Figure("cosine", "lower", "Likeness to the nearest reference beyond any two references'."),
    "copied": Figure("share", "lower", "Faces liker to one reference than any two references are."),
    "pixel_match": Figure(
        "correlation", "lower", "Detail shared with the likest reference; near 1: pasted.", False
    ),
    "pixel_excess": Figure("correlation", "lower", "The same beyond what two references share.", False),
    "yaw_range": Figure(
        "degrees", "neither", "From left to right, 5th to 95th percentile; 0: frozen.", False
    ),
    "pitch_range": Figure("degrees", "neither", "From down to up, 5th to 95th percentile.", False),
    "roll_range": Figure("degrees", "neither", "Tilt of the head, 5th to 95th percentile.", False),
    "expression_range": Figure(
        "eye distances", "neither", "How far lips, lids, chin and brows move; below 0.02: frozen.", False
    ),
    "faces_per_frame": Figure("people per frame", "neither", "Faces found, whoever they are.", False),
    "shot_likeness": Figure("cosine", "higher", "Likeness of a character in one shot to itself in another."),
    "shot_slope": Figure("cosine per shot", "higher", "How that changes with each shot between the two."),
    "shot_gate": Figure(
        "share", "higher", "Scheduled appearances that are the right person, so that they count."
    ),
    "presence_precision": Figure("share", "higher", "Of the appearances seen, those that the schedule has."),
    "presence_recall": Figure("share", "higher", "Of the scheduled appearances, those that are seen."),
}


def figure_of(name: str) -> Figure:
    """Of ``likeness/embedded`` what FIGURES says of ``likeness``; raises KeyError for a name that is none."""
    return FIGURES[name.split("/", maxsplit=1)[0]]


def figures(evaluation: Evaluation) -> dict[str, float]:
    """All figures of one video, or of a mean, by name; NaN where nothing was seen. Those of characters are their
    mean over the cast."""
    found: dict[str, float] = {}
    for scores in evaluation.scores:
        rows = {**_of_characters(scores), **_of_the_cast(scores)}
        found |= {f"{name}/{scores.pack}": _mean(value) for name, value in rows.items()}
    found |= {name: _mean(value) for name, value in _of_faces(evaluation).items()}
    return found | {"faces_per_frame": evaluation.num_faces}


def character_figures(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """Of each member of the cast the figures that a single character has, by the same names."""
    found: dict[str, dict[str, float]] = {}
    for i, name in enumerate(evaluation.cast):
        rows = {figure: float(values[i]) for figure, values in _of_faces(evaluation).items()}
        for scores in evaluation.scores:
            values = _of_characters(scores).items()
            rows |= {f"{figure}/{scores.pack}": float(value[i]) for figure, value in values}
        found[name] = rows
    return found


def _of_characters(scores: Scores) -> dict[str, F64]:
    """f64[N] by figure."""
    apart = ~np.eye(len(scores.similarity), dtype=bool)
    others = [row[mask] for row, mask in zip(scores.similarity, apart, strict=True)]
    return {
        "likeness": np.diagonal(scores.similarity),
        "bleed": np.array([_mean(row) for row in others]),
        "margin": scores.margin,
        "coverage": scores.coverage,
        "recognised": scores.recognised,
        "present": scores.people.present,
        "steadiness": scores.drift.steadiness,
        "steadiness_slope": scores.drift.steadiness_slope,
        "likeness_slope": scores.drift.likeness_slope,
        "copy_excess": scores.copying.excess,
        "copied": scores.copying.copied,
    }


def _of_the_cast(scores: Scores) -> dict[str, F64]:
    """f64[1] by figure."""
    rows = {
        "likeness_lowest": _lowest(np.diagonal(scores.similarity)),
        "margin_lowest": _lowest(scores.margin),
        "swap_rate": scores.swap_rate,
        "switches": scores.switches_per_1000,
        "missing": scores.people.missing,
        "duplicates": scores.people.duplicates,
        "strangers": scores.people.strangers,
    }
    return {name: np.array([value], np.float64) for name, value in rows.items()}


def _of_faces(evaluation: Evaluation) -> dict[str, F64]:
    """f64[N] by figure, of those that no recogniser says."""
    alive, pixels = evaluation.liveliness, evaluation.pixels
    return {
        "pixel_match": pixels.match,
        "pixel_excess": pixels.match - pixels.ceiling,
        "yaw_range": alive.yaw_range_deg,
        "pitch_range": alive.pitch_range_deg,
        "roll_range": alive.roll_range_deg,
        "expression_range": alive.expression_range,
    }


def _mean(values: F64) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _lowest(values: F64) -> float:
    known = values[np.isfinite(values)]
    return float(known.min()) if len(known) else float("nan")
