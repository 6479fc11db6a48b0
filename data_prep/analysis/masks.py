"""Face outlines to label maps: who is seen at each pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from skimage.draw import polygon

from data_prep.records import F32, U8

SIMILAR_SIZE = 0.8
"""Faces whose areas differ by less than this ratio are equally near; then the surer detection is in front."""


def draw(outlines_px: Sequence[F32], height_px: int, width_px: int, order: Sequence[int] | None = None) -> U8:
    """u8[H,W]: 0 nobody, k inside the k-th outline (f32[P,2], x y). ``order`` lists outlines back to front.

    A pixel belongs to an outline that holds its centre, so that areas are kept down to a few pixels (OpenCV's
    fillPoly adds the whole border: a 20-px face grows by a tenth).
    """
    label = np.zeros((height_px, width_px), np.uint8)
    for slot in range(len(outlines_px)) if order is None else order:
        corners = outlines_px[slot].astype(np.float64) - 0.5  # pixel k spans [k, k+1): its centre is k + 0.5
        label[polygon(corners[:, 1], corners[:, 0], label.shape)] = slot + 1
    return label


def back_to_front(boxes_px: F32, scores: F32) -> list[int]:
    """Indices of f32[n,4] boxes from the farthest to the nearest face.

    A larger face is nearer; of two faces of similar size the one with the higher score is, since a covered face
    scores lower (measured for the embedded detector). Faces are taken in order of size, and each passes those
    before it that are similar and score higher.
    """
    areas = (boxes_px[:, 2] - boxes_px[:, 0]) * (boxes_px[:, 3] - boxes_px[:, 1])
    order: list[int] = []
    for face in np.argsort(areas, kind="stable"):
        at = len(order)
        while (
            at and areas[order[at - 1]] > SIMILAR_SIZE * areas[face] and scores[order[at - 1]] > scores[face]
        ):
            at -= 1
        order.insert(at, int(face))
    return order


def ellipse(box_px: F32, num_points: int = 36) -> F32:
    """f32[P,2] outline of a face known by its box alone: the ellipse that touches the box's four sides."""
    angle = np.linspace(0, 2 * np.pi, num_points, endpoint=False)
    centre, half = (box_px[:2] + box_px[2:]) / 2, (box_px[2:] - box_px[:2]) / 2
    return np.asarray(centre + half * np.stack([np.sin(angle), -np.cos(angle)], 1), np.float32)


def checked_outline(outline_px: F32, box_px: F32) -> F32:
    """The outline, or the box's ellipse where the mesh has lost the face: no number, or its bounds overlap the
    box by less than 0.3 (intersection over union), as happens on covered faces."""
    if np.isfinite(outline_px).all():
        low, high = outline_px.min(0), outline_px.max(0)
        inner = np.clip(np.minimum(high, box_px[2:]) - np.maximum(low, box_px[:2]), 0, None).prod()
        union = (high - low).prod() + (box_px[2:] - box_px[:2]).prod() - inner
        if inner > 0.3 * union:
            return outline_px
    return ellipse(box_px, len(outline_px))
