"""What the pages are made of, out of an evaluation.json: columns, rows as short as they can be, means."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from data_prep.records import Json
from pipeline.judging.figures import Figure, figure_of

POINTS = 60  # of a timeline, however long the video is
FIRST = (  # figures that are shown before one asks for all, the first the one that rows are sorted by
    "margin_lowest",
    "likeness_lowest",
    "likeness",
    "bleed",
    "recognised",
    "swap_rate",
    "missing",
    "steadiness",
    "copy_excess",
    "expression_range",
    "clip_score",
    "motion",
    "flicker",
)
OF_CHARACTERS = ("likeness", "bleed", "margin", "recognised", "steadiness", "expression_range", "copy_excess")
PLAIN = Figure("", "neither", "")


def known_figure(name: str) -> Figure:
    """What is known of a figure; of one that is not ours, nothing."""
    try:
        return figure_of(name)
    except KeyError:
        return PLAIN


def figure_names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Figures that any row has a value of, those of FIRST first, then as they come."""
    there = dict.fromkeys(name for row in rows for name, value in row.items() if value is not None)
    rank = {name: at for at, name in enumerate(FIRST)}
    return sorted(there, key=lambda name: rank.get(_base(name), len(rank)))


def column(name: str) -> Json:
    """A figure for the page: base, who says it, unit, direction, meaning, whether it is shown at first."""
    base, _, said_by = name.partition("/")
    figure = known_figure(name)
    shown = base in FIRST and said_by in ("", "embedded")
    return {
        "name": name,
        "base": base.replace("_", " "),
        "by": said_by,
        "unit": figure.unit,
        "better": figure.better,
        "says": figure.says,
        "shown": shown,
    }


def clip_row(row: Json, names: Sequence[str], picture: str) -> Json:
    """One video for the page: its figures in the columns' order, characters, matrices, likeness over time."""
    return {
        "title": row["video"].rsplit("/", 1)[-1].removesuffix(".mp4"),
        "path": row["video"],
        "key": row["key"],
        "strip": picture,
        "cast": row["cast"],
        "frames": row["num_frames"],
        "values": [short(row["figures"].get(name)) for name in names],
        "characters": {
            who: {name: short(value) for name, value in figures.items() if _base(name) in OF_CHARACTERS}
            for who, figures in row["characters"].items()
        },
        "packs": [
            {
                "pack": one["pack"],
                "same": one["same_person"],
                "matrix": [[short(value) for value in line] for line in one["similarity"]],
                "own": thinned(one["own_by_frame"]),
            }
            for one in row["scores"]
        ],
    }


def thinned(over_time: Sequence[Sequence[float | None]]) -> list[list[float | None]]:
    """At most POINTS of the T rows, evenly spaced, rounded."""
    step = max(1, math.ceil(len(over_time) / POINTS))
    return [[short(value) for value in line] for line in over_time[::step]]


def short(value: float | None) -> float | None:
    """Four digits; None for what is not there."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.4g}")


def filled(template: str, title: str, data: Json) -> str:
    """A page of this folder with its title, the data that its script draws, and what all pages share."""
    here = Path(__file__).parent
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Template((here / template).read_text(encoding="utf-8")).substitute(
        title=escape(title),
        data=text.replace("<", "\\u003c"),  # so that no text of a prompt ends the script element
        style=(here / "style.css").read_text(encoding="utf-8"),
        shared=(here / "shared.js").read_text(encoding="utf-8"),
    )


def _base(name: str) -> str:
    return name.split("/", maxsplit=1)[0]
