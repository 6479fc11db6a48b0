"""Histograms as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 320, 150, 8, 24, 18


@dataclass(frozen=True)
class Histogram:
    """What to draw: bins of equal width over ``[low, high]``; values outside are counted at the ends; marks are
    vertical lines, for limits; ticks are labelled, five evenly spaced ones where none are given."""

    title: str
    values: Sequence[float]
    low: float
    high: float
    num_bins: int
    unit: str = ""
    marks: tuple[float, ...] = ()
    ticks: tuple[float, ...] = ()


def svg(chart: Histogram) -> str:
    """The histogram, with median and number in its heading."""
    values = np.asarray(chart.values, float)
    counts, edges = np.histogram(values.clip(chart.low, chart.high), chart.num_bins, (chart.low, chart.high))
    plot_width, plot_height = WIDTH - 2 * LEFT, HEIGHT - BOTTOM - TOP
    step = plot_width / chart.num_bins
    bars = []
    for at, count in enumerate(counts):
        tall = plot_height * count / max(int(counts.max(initial=0)), 1)
        x, y = LEFT + at * step, TOP + plot_height - tall
        tip = f"{edges[at]:g} to {edges[at + 1]:g}{chart.unit}: {count}"
        bars.append(
            f'<rect class="bar" x="{x + 0.5:.1f}" y="{y:.1f}" width="{step - 1:.1f}" height="{tall:.1f}">'
            f"<title>{tip}</title></rect>"
        )
    return (
        f'<figure class="chart"><figcaption>{chart.title} <span>{_summary(chart)}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(bars)}{_axis(chart)}</svg></figure>'
    )


def _summary(chart: Histogram) -> str:
    if not len(chart.values):
        return "nothing to show"
    return f"median {np.median(np.asarray(chart.values, float)):.3g}{chart.unit}, n = {len(chart.values)}"


def _axis(chart: Histogram) -> str:
    floor = HEIGHT - BOTTOM
    parts = [f'<line class="axis" x1="{LEFT}" y1="{floor}" x2="{WIDTH - LEFT}" y2="{floor}"/>']
    for tick in chart.ticks or np.linspace(chart.low, chart.high, 5):
        share = (tick - chart.low) / (chart.high - chart.low)
        anchor = "start" if share == 0 else "end" if share == 1 else "middle"
        x = LEFT + share * (WIDTH - 2 * LEFT)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{tick:g}</text>')
    for mark in chart.marks:
        x = LEFT + (mark - chart.low) / (chart.high - chart.low) * (WIDTH - 2 * LEFT)
        parts.append(f'<line class="mark" x1="{x:.1f}" y1="{TOP - 4}" x2="{x:.1f}" y2="{floor}"/>')
        parts.append(f'<text x="{x:.1f}" y="{TOP - 7}" text-anchor="middle">{mark:g}</text>')
    return "".join(parts)
