"""Several evaluations side by side, runs or strategies: means with intervals, each against the first over the same
prompts and seeds, and the videos that differ most."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_prep.records import InputError, Json
from pipeline.judging.intervals import Difference, compare
from pipeline.judging.pages.content import column, figure_names, filled, short
from pipeline.judging.stored import by_video

COLOURS = ("#3b6fb6", "#d97706", "#1e8e5a", "#b5457f", "#6b5bd2", "#0891b2", "#a15c2f", "#6b7280")
WIDTH, ROW_PX = 260, 15  # of the drawing of one figure's intervals, and of a run in it


def comparison_page(runs: Mapping[str, Json], strips: Mapping[str, Mapping[str, str]], title: str) -> str:
    """The page's HTML.

    runs: evaluation.json by the run's name, the first the one that others are compared with; strips: by run and key
    where the page finds a video's frames; title: its heading. Raises InputError for fewer than two runs.
    """
    if len(runs) < 2:
        raise InputError(f"compare: {len(runs)} evaluation came; give two or more")
    labels = list(runs)
    names = figure_names(row["figures"] for content in runs.values() for row in content["videos"])
    whole = list(dict.fromkeys(name for content in runs.values() for name in content.get("whole", {})))
    found = [differences(runs[labels[0]], runs[label]) for label in labels[1:]]
    data = {
        "labels": labels,
        "colours": [COLOURS[at % len(COLOURS)] for at in range(len(labels))],
        "counts": [len(content["videos"]) for content in runs.values()],
        "rows": [
            *(_figure_row(name, list(runs.values()), found) for name in names),
            *(_whole_row(name, list(runs.values())) for name in whole),
        ],
        "columns": [column(name) for name in names],
        "pairs": _pairs(runs, names, strips),
    }
    return filled("comparison.html", title, data)


def differences(a: Json, b: Json) -> dict[str, Difference]:
    """Of two evaluation.json the paired differences by figure; empty where no prompt and seed is in both."""
    return {one.name: one for one in compare(by_video(a), by_video(b))}


def _figure_row(name: str, contents: Sequence[Json], found: Sequence[Mapping[str, Difference]]) -> Json:
    means = [content["figures"].get(name) for content in contents]
    bounds = [[short(one[part]) if one else None for part in ("mean", "low", "high")] for one in means]
    return {
        **column(name),
        "means": bounds,
        "drawing": forest(bounds),
        "against": [None] + [_against(one.get(name)) for one in found],
    }


def _whole_row(name: str, contents: Sequence[Json]) -> Json:
    bounds = [[short(content.get("whole", {}).get(name)), None, None] for content in contents]
    return {
        **column(name),
        "shown": True,
        "means": bounds,
        "drawing": forest(bounds),
        "against": [None] * len(contents),
    }


def _against(one: Difference | None) -> Json | None:
    if one is None:
        return None
    d = dataclasses.asdict(one.difference)
    return {
        "verdict": one.verdict,
        "mean": short(d["mean"]),
        "low": short(d["low"]),
        "high": short(d["high"]),
        "num": d["num"],
        "p": short(one.adjusted_p),
        "says": one.in_words(),
    }


def forest(bounds: Sequence[Sequence[float | None]]) -> str:
    """One figure of several runs as SVG: a dot at the mean, a line over the interval, one row a run."""
    known = [value for one in bounds for value in one if value is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    span = (high - low) or abs(high) or 1.0
    low, high = low - 0.06 * span, high + 0.06 * span

    def x(value: float) -> float:
        return 6 + (WIDTH - 12) * (value - low) / (high - low)

    parts = []
    for at, (mean, lower, upper) in enumerate(bounds):
        y, colour = ROW_PX * (at + 0.5), COLOURS[at % len(COLOURS)]
        if lower is not None and upper is not None:
            parts.append(
                f'<path d="M{x(lower):.1f} {y}H{x(upper):.1f}" stroke="{colour}" stroke-width="3" opacity=".45"/>'
            )
        if mean is not None:
            parts.append(f'<circle cx="{x(mean):.1f}" cy="{y}" r="4.5" fill="{colour}"/>')
    zero = f'<path d="M{x(0):.1f} 0V{ROW_PX * len(bounds)}" stroke="#c5ccd8" stroke-dasharray="3 3"/>'
    line = zero if low < 0 < high else ""
    return f'<svg width="{WIDTH}" height="{ROW_PX * len(bounds)}" role="img">{line}{"".join(parts)}</svg>'


def _pairs(
    runs: Mapping[str, Json], names: Sequence[str], strips: Mapping[str, Mapping[str, str]]
) -> list[Json]:
    """Videos that two runs or more have: key, and per run its figures and strip, or None."""
    rows = {label: {row["key"]: row for row in content["videos"]} for label, content in runs.items()}
    keys = dict.fromkeys(
        key for content in runs.values() for row in content["videos"] for key in [row["key"]]
    )
    pairs = []
    for key in keys:
        there = [rows[label].get(key) for label in runs]
        if sum(row is not None for row in there) < 2:
            continue
        cells = [
            None
            if row is None
            else {
                "strip": strips.get(label, {}).get(key, ""),
                "values": [short(row["figures"].get(name)) for name in names],
            }
            for label, row in zip(runs, there, strict=True)
        ]
        pairs.append({"key": key, "cells": cells})
    return pairs


def strips_beside(content: Json, folder: Path, page: Path) -> dict[str, str]:
    """Where a page finds the strips that castbank evaluate left in ``folder``: relative names by key."""
    found = {}
    for row in content["videos"]:
        if row.get("strip") and (folder / row["strip"]).is_file():
            found[row["key"]] = Path(os.path.relpath(folder / row["strip"], page.parent)).as_posix()
    return found
