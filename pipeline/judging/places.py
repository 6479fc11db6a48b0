"""Which face of a frame is which character's, by a layout or by likeness; which faces are one track over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from data_prep.records import F32, F64, I32, U8
from data_prep.tracks import iou

MIN_INSIDE = 0.3  # share of a face's box that must lie in a character's region of the layout
MIN_IOU = 0.3  # from one frame to the next, for two faces to be one track


def by_similarity(similarity: F64) -> I32:
    """int32[N]: the face of each character, −1 for none, with the largest sum of similarities f64[n,N]."""
    face_of = np.full(similarity.shape[1], -1, np.int32)
    faces, characters = linear_sum_assignment(similarity, maximize=True)
    face_of[characters] = faces
    return face_of


def by_layout(boxes: F32, regions: U8, num_cast: int) -> I32:
    """int32[N]: the face whose box lies most in each character's region, −1 where none holds MIN_INSIDE of one."""
    height, width = regions.shape
    inside = np.zeros((len(boxes), num_cast))
    for face, (x1, y1, x2, y2) in enumerate(np.clip(boxes, 0, 1) * (width, height, width, height)):
        window = regions[
            int(y1) : max(int(np.ceil(y2)), int(y1) + 1), int(x1) : max(int(np.ceil(x2)), int(x1) + 1)
        ]
        counts = np.bincount(window.ravel(), minlength=num_cast + 1)[1 : num_cast + 1]
        inside[face] = counts / max(window.size, 1)
    face_of = by_similarity(inside)
    held = np.array([face >= 0 and inside[face, i] >= MIN_INSIDE for i, face in enumerate(face_of)], bool)
    return np.where(held, face_of, -1).astype(np.int32)


def tracks_of(boxes: Sequence[F32]) -> list[I32]:
    """int32[n] per frame: faces that overlap from one frame to the next share a number."""
    tracks: list[I32] = []
    fresh = 0
    for t, now in enumerate(boxes):
        mine = np.full(len(now), -1, np.int32)
        if t and len(now) and len(boxes[t - 1]):
            overlap = iou(boxes[t - 1], now)
            for before, after in zip(*linear_sum_assignment(overlap, maximize=True), strict=True):
                if overlap[before, after] >= MIN_IOU:
                    mine[after] = tracks[-1][before]
        for face in np.flatnonzero(mine < 0):
            mine[face], fresh = fresh, fresh + 1
        tracks.append(mine)
    return tracks
