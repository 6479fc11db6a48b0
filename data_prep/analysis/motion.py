"""How far the picture moves from frame to frame, and from that on which frames faces have to be looked for.

Dense optical flow by inverse search on patches (Kroeger et al. 2016; OpenCV's DIS, fastest preset) costs half a
millisecond a frame at the size of a thumbnail, a detection 33. So faces are looked for where something happened.
"""

from __future__ import annotations

import cv2
import numpy as np

from data_prep.records import F32, U8

ANYWHERE = 1.0
"""``max_travel`` from which motion does not matter: a face that moved by its own size is somewhere else."""


class FlowMeter:
    """Optical flow between successive thumbnails."""

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOpticalFlow_PRESET_ULTRAFAST)
        self._flow.setUseSpatialPropagation(
            False
        )  # with it, the answer would depend on the number of threads
        self._last: U8 | None = None

    def see(self, thumb: U8) -> F32:
        """f32[h,w,2] pixels of the thumbnail that each has moved since the last frame; zeros for the first and
        after a cut. ``thumb``: u8[h,w,3] RGB."""
        grey = np.asarray(cv2.cvtColor(thumb, cv2.COLOR_RGB2GRAY), np.uint8)
        last, self._last = self._last, grey
        if last is None or min(grey.shape) < 16:  # smaller than DIS's patches
            return np.zeros((*grey.shape, 2), np.float32)
        return np.asarray(self._flow.calc(last, grey, None), np.float32)

    def cut(self) -> None:
        """What was seen so far has nothing to do with the next frame."""
        self._last = None


class Pacer:
    """When to look for faces: at the first frame, after ``every`` frames at the latest, and sooner where a face has
    moved by more than ``max_travel`` of its size, where something of a face's size has moved by as much (somebody
    may have come in), where faces overlap, or where one was lost."""

    def __init__(self, every: int, max_travel: float, face_px: float) -> None:
        """face_px: the smallest face that counts, in the flow's pixels."""
        self._every, self._max_travel, self._face_px = every, max_travel, face_px
        self._moved: F32 | None = None
        self._since = 0

    def is_due(self, flow: F32, boxes: F32, *, unsure: bool) -> bool:
        """About the next frame. flow: its f32[h,w,2]; boxes: f32[n,4] of the known faces, in the flow's pixels;
        unsure: tracking asks for every frame. After True, the caller looks."""
        self._since += 1
        self._moved = flow.copy() if self._moved is None else self._moved + flow
        if unsure or self._since >= self._every or self._has_moved(boxes):
            self._since, self._moved = 0, None
            return True
        return False

    def cut(self) -> None:
        """The next frame is a shot's first."""
        self._since, self._moved = self._every, None

    def _has_moved(self, boxes: F32) -> bool:
        """Whether a known face has, or something that could be another one."""
        if self._max_travel >= ANYWHERE:
            return False
        assert self._moved is not None
        length = np.asarray(np.linalg.norm(self._moved, axis=-1), np.float32)
        if (length > self._face_px).sum() > self._face_px**2:
            return True
        return any(_travel(length, box) > self._max_travel for box in boxes.tolist())


def _travel(length: F32, box: list[float]) -> float:
    """The mean of f32[h,w] motion within a box, over the box's shorter side; 0 outside the picture."""
    x1, y1, x2, y2 = box
    height, width = length.shape
    left, right = (min(max(round(x), 0), width) for x in (x1, x2))
    top, bottom = (min(max(round(y), 0), height) for y in (y1, y2))
    inside = length[top:bottom, left:right]
    return float(inside.mean()) / max(min(x2 - x1, y2 - y1), 1.0) if inside.size else 0.0
