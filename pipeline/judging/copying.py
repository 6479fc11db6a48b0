"""Whether a face was pasted: likeness to one reference picture beyond what other pictures of the person reach.

A model that copies a reference scores highest on likeness to the references. Two signs tell it from one that knows
the person: it is liker to one reference than the references are to each other (leave one out), and, beyond any
recogniser, its aligned pixels follow that picture's. A real video shot on the day of a reference may show the first
sign; the second is the picture itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.records import F32, F64, U8

COARSE_PX = 4.0  # what is smoother than this is light and the shape that all faces share; it is taken out
FINE_PX = 1.0  # what is finer is the codec's
INNER = (
    slice(30, 100),
    slice(24, 88),
)  # rows, columns of the 112-px crop: brows to mouth, no hair, no backdrop
# Alignment of one picture trembles by that much. With it a picture pasted into another clip with a codec's error
# matches itself at .91 (without: .85), two frames of one film of the same man at .60, two films at .35 to .64.
SHIFT_PX = 2


@dataclass(frozen=True)
class Copying:
    """Of N characters; NaN where unseen, ceiling and excess also with one reference. nearest: f64[N], cosine to the
    likest single reference, median over frames; ceiling: f64[N], the highest cosine between two references; excess:
    f64[N], nearest − ceiling; copied: f64[N], share of seen frames whose nearest is above the ceiling."""

    nearest: F64
    ceiling: F64
    excess: F64
    copied: F64


@dataclass(frozen=True)
class PixelCopying:
    """Of N characters, NaN where unseen or without pictures of references. match: f64[N], correlation in [-1,1] of
    the aligned crop with the likest reference or its mirror image, median over frames; ceiling: f64[N], the highest
    between two references, NaN with one."""

    match: F64
    ceiling: F64


def copying(own_faces: Sequence[F32], references: Sequence[F32], ceilings: Sequence[float]) -> Copying:
    """By one recogniser: of each of N characters the unit rows f32[T',D] of its seen faces, f32[R,D] of its
    references, and their ceiling."""
    nearest, copied = [], []
    for faces, known, ceiling in zip(own_faces, references, ceilings, strict=True):
        likest = (faces @ known.T).max(1) if len(faces) else np.zeros(0, np.float32)
        nearest.append(float(np.median(likest)) if len(likest) else np.nan)
        copied.append(float((likest > ceiling).mean()) if len(likest) and np.isfinite(ceiling) else np.nan)
    ceiling_of = np.asarray(ceilings, np.float64)
    return Copying(np.array(nearest), ceiling_of, np.array(nearest) - ceiling_of, np.array(copied))


def pixel_match(crops: U8, references: U8) -> F64:
    """f64[n]: correlation of each crop u8[n,112,112,3] with the likest reference u8[R,112,112,3] or its mirror."""
    rows, columns = ((side.start - SHIFT_PX, side.stop + SHIFT_PX) for side in INNER)
    known = [
        detail[slice(*rows), slice(*columns)]
        for reference in references
        for detail in (_detail(reference), _detail(reference[:, ::-1]))
    ]
    matches = [
        max(float(cv2.matchTemplate(one, _detail(crop)[INNER], cv2.TM_CCOEFF_NORMED).max()) for one in known)
        for crop in crops
    ]
    return np.asarray(matches, np.float64)


def pixel_ceiling(references: U8) -> float:
    """The highest correlation between two references of one character; NaN with one."""
    if len(references) < 2:
        return float("nan")
    return max(
        float(pixel_match(references[k : k + 1], np.delete(references, k, 0))[0])
        for k in range(len(references))
    )


def _detail(crop: U8) -> F32:
    """f32[112,112]: a crop in grey, between two scales."""
    grey = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY).astype(np.float32)
    band = cv2.GaussianBlur(grey, (0, 0), FINE_PX) - cv2.GaussianBlur(grey, (0, 0), COARSE_PX)
    return np.asarray(band, np.float32)
