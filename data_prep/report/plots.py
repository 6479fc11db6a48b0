"""Pictures of a whole preparation for a tracking server: what became of everything, why, how sure identities are.

Drawn from what lies beside the shards alone, with matplotlib's figures and no display.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import ledger
from data_prep.records import Decision, Fate, Json
from data_prep.report.charts import Histogram
from data_prep.report.gather import MOST_READ, spaced
from data_prep.report.page import distributions
from data_prep.shards import ShardSet

INK, SOFT, KEPT, DROPPED, BAD = "#1c2430", "#667085", "#3b6fb6", "#c9d3e2", "#d1495b"
FATES: dict[Fate, str] = {"kept": KEPT, "dropped": DROPPED, "quarantined": BAD}
MOST_RULES = 14
CALIBRATION = "calibration.json"


def save_plots(folder: Path, output: Path) -> list[Path]:
    """Draw what there is to draw of a finished shard folder into PNG files in ``output``, and return them."""
    shards = ShardSet.open(folder, "all")
    path = folder / ledger.LEDGER
    decisions = ledger.read(path) if path.is_file() else []
    notes = list(shards.notes(spaced(len(shards), MOST_READ)))
    limits = shards.manifest.facts.get("limits", {})
    drawn = {"what_became": _fates(decisions), "left_out": _rules(decisions)}
    if notes:
        drawn |= {"distributions": _histograms(distributions(notes, limits)), "people": _people(shards)}
    curve = (
        json.loads((folder / CALIBRATION).read_text())["curve"] if (folder / CALIBRATION).is_file() else []
    )
    if curve:
        drawn["calibration"] = calibration_plot(curve, shards.manifest.facts["calibration"])
    output.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in drawn.items():
        if figure is not None:
            figure.savefig(output / f"{name}.png", dpi=140, facecolor="white", metadata={"Software": None})
            written.append(output / f"{name}.png")
    return written


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(np.ravel(figure.subplots(rows, columns)))
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.spines[["left", "bottom"]].set_color(DROPPED)
        one.tick_params(colors=SOFT, labelsize=9, length=0)
    return figure, axes


def _title(axes: Any, title: str, more: str = "") -> None:
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK)
    axes.set_title(more, loc="right", fontsize=9, color=SOFT)


def _fates(decisions: Sequence[Decision]) -> Any:
    """One bar per kind of item, whole at 100 %: kept, dropped, quarantined."""
    counts = Counter((_kind(decision), decision.fate) for decision in decisions)
    kinds = [kind for kind in ("clip", "track", "window") if any((kind, fate) in counts for fate in FATES)]
    if not kinds:
        return None
    figure, (axes,) = _figure(9, 1.2 + 0.6 * len(kinds))
    for place, kind in enumerate(kinds):
        total, left = sum(counts[kind, fate] for fate in FATES), 0.0
        for fate, colour in FATES.items():
            share = counts[kind, fate] / total
            axes.barh(place, share, left=left, color=colour, height=0.62, label=fate if not place else None)
            if share > 0.04:
                ink = "white" if fate != "dropped" else INK
                text = f"{counts[kind, fate]:,}"
                axes.text(left + share / 2, place, text, ha="center", va="center", color=ink, fontsize=10)
            left += share
    axes.set_yticks(range(len(kinds)), [f"{kind}s" for kind in kinds], fontsize=11, color=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    _title(axes, "What became of everything")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False, fontsize=9)
    return figure


def _kind(decision: Decision) -> str:
    """A sample is a window that was kept."""
    return "window" if decision.kind == "sample" else decision.kind


def _rules(decisions: Sequence[Decision]) -> Any:
    """A bar per rule that left something out, the most frequent first."""
    lost = [decision for decision in decisions if decision.fate != "kept"]
    counts = Counter((_kind(decision), decision.rule, decision.fate) for decision in lost)
    if not counts:
        return None
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_RULES]
    figure, (axes,) = _figure(9, 1 + 0.36 * len(top))
    numbers = [number for _, number in top]
    axes.barh(
        range(len(top)),
        numbers,
        color=[BAD if key[2] == "quarantined" else KEPT for key, _ in top],
        height=0.7,
    )
    for place, number in enumerate(numbers):
        axes.text(number, place, f" {number:,}", va="center", color=INK, fontsize=9)
    axes.set_yticks(
        range(len(top)), [f"{kind}: {rule}" for (kind, rule, _), _ in top], fontsize=10, color=INK
    )
    axes.invert_yaxis()
    axes.margins(x=0.1)
    more = f"{len(lost):,} of {len(decisions):,} items" + (
        f", {len(counts) - len(top)} rules more" if len(counts) > len(top) else ""
    )
    _title(axes, "Left out, by rule", more)
    return figure


def _histograms(charts: Sequence[Histogram]) -> Any:
    figure, axes = _figure(13, 3.1 * -(-len(charts) // 3), -(-len(charts) // 3), 3)
    for one, chart in zip(axes, charts, strict=False):
        values = np.asarray(chart.values, float)
        one.hist(
            values.clip(chart.low, chart.high),
            chart.num_bins,
            (chart.low, chart.high),
            color=KEPT,
            rwidth=0.9,
        )
        for mark in chart.marks:
            one.axvline(mark, color=BAD, linestyle="--", linewidth=1)
        if chart.ticks:
            one.set_xticks(chart.ticks)
        one.set_yticks([])
        median = (
            f"median {np.median(values):.3g}{chart.unit}, n = {len(values):,}" if len(values) else "nothing"
        )
        _title(one, chart.title, median)
    for one in axes[len(charts) :]:
        one.set_visible(False)
    return figure


def _people(shards: ShardSet) -> Any:
    """Samples of each character, the most frequent first: how long the tail is."""
    counts = Counter(name for row in shards.rows for name in row.cast).most_common()
    figure, (axes,) = _figure(9, 3.6)
    numbers = [number for _, number in counts]
    axes.stairs(numbers, np.arange(len(numbers) + 1) + 0.5, fill=True, color=KEPT)
    axes.set_yscale("log")
    axes.set_ylim(0.8)
    axes.set_xlim(0.5, len(numbers) + 0.5)
    axes.set_xlabel("characters, by number of samples", color=SOFT, fontsize=9)
    once = sum(number == 1 for number in numbers)
    _title(axes, "Samples of each character", f"{len(numbers):,} characters, {once:,} in one sample alone")
    return figure


def calibration_plot(curve: Sequence[Json], facts: Json) -> Any:
    """False accepts and false rejects at every threshold, and the threshold in force."""
    figure, (axes,) = _figure(9, 4.2)
    at = [row["threshold"] for row in curve]
    pairs = (
        ("false_accept", "false accepts: two people pass as one", BAD),
        ("false_reject", "false rejects", KEPT),
    )
    for name, label, colour in pairs:
        rates = [np.nan if row[name] is None else row[name] for row in curve]
        if not np.isnan(rates).all():
            axes.plot(at, rates, color=colour, linewidth=2, label=label)
    axes.axvline(facts["threshold"], color=INK, linestyle="--", linewidth=1)
    axes.text(facts["threshold"], 1.0, f" in force: {facts['threshold']:g}", color=INK, fontsize=9, va="top")
    axes.set_yscale("symlog", linthresh=0.001)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.1%}")
    axes.set_xlabel("cosine from which two faces are one person", color=SOFT, fontsize=9)
    numbers = f"{facts['num_negative']:,} pairs seen together, {facts['num_positive']:,} of one track"
    _title(axes, "How sure identities are", numbers)
    axes.legend(frameon=False, fontsize=9, loc="center left")
    return figure
