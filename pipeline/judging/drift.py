"""How a face changes over time: from frame to frame, and away from its references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from data_prep.records import F32, F64

MIN_FRAMES = 3  # below it a slope says nothing


@dataclass(frozen=True)
class Drift:
    """Of N characters, NaN where seen in too few frames. steadiness: f64[N], mean cosine between the faces at i of
    successive looked-at frames; steadiness_slope, likeness_slope: f64[N], least-squares slope over time of that
    and of the cosine to the references, per 100 frames of the video."""

    steadiness: F64
    steadiness_slope: F64
    likeness_slope: F64


def drift(faces: Sequence[Sequence[F32 | None]], own: F64, step: int = 1) -> Drift:
    """faces: of each of N characters in each of T frames the unit row f32[D], or None; own: f64[T,N] cosine to the
    references, NaN where unseen; step: frames of the video from one looked-at frame to the next."""
    times = np.arange(len(own)) * step / 100.0
    steadiness, slopes = [], []
    for over_time in faces:
        pairs = [float(a @ b) if a is not None and b is not None else np.nan for a, b in pairwise(over_time)]
        steps = np.asarray([np.nan, *pairs])
        known = np.isfinite(steps)
        steadiness.append(float(steps[known].mean()) if known.any() else np.nan)
        slopes.append(slope(times, steps))
    toward = [slope(times, own[:, i]) for i in range(own.shape[1])]
    return Drift(np.array(steadiness), np.array(slopes), np.array(toward))


def slope(times: F64, values: F64) -> float:
    """Least-squares slope of f64[T] values over f64[T] times, NaN left out; NaN below MIN_FRAMES of them."""
    known = np.isfinite(values)
    if known.sum() < MIN_FRAMES:
        return float("nan")
    away = times[known] - times[known].mean()
    return float(away @ values[known] / (away @ away))
