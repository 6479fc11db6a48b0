"""How far the picture moves from frame to frame, and from that on which frames faces have to be looked for.

Dense optical flow by inverse search on patches (Kroeger et al. 2016; OpenCV's DIS, fastest preset) costs half a
millisecond a frame at the size of a thumbnail, a detection 33. So faces are looked for where something happened.
"""

from __future__ import annotations

import cv2
import numpy as np

from data_prep.records import F32, U8


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
    moved by more than ``max_travel`` of its size, where faces overlap, or where one was lost."""

    def __init__(self, every: int, max_travel: float) -> None:
        self._every, self._max_travel = every, max_travel
        self._moved: F32 | None = None
        self._since = 0

    def is_due(self, flow: F32, boxes: F32, *, unsure: bool) -> bool:
        """About the next frame. flow: its f32[h,w,2]; boxes: f32[n,4] of the known faces, in the flow's pixels;
        unsure: tracking asks for every frame. After True, the caller looks."""
        self._since += 1
        self._moved = flow.copy() if self._moved is None else self._moved + flow
        if unsure or self._since >= self._every or self._travel(boxes) > self._max_travel:
            self.looked()
            return True
        return False

    def looked(self) -> None:
        """Somebody looked at the frame that was last asked about."""
        self._since, self._moved = 0, None

    def cut(self) -> None:
        """The next frame is a shot's first."""
        self._since, self._moved = self._every, None

    def _travel(self, boxes: F32) -> float:
        """The greatest of the faces' mean motions, each over the shorter side of its box."""
        assert self._moved is not None
        height, width = self._moved.shape[:2]
        most = 0.0
        for x1, y1, x2, y2 in boxes.tolist():
            left, right = (min(max(round(x), 0), width) for x in (x1, x2))
            top, bottom = (min(max(round(y), 0), height) for y in (y1, y2))
            inside = self._moved[top:bottom, left:right]
            if inside.size:
                mean_px = float(np.linalg.norm(inside, axis=-1).mean())
                most = max(most, mean_px / max(min(x2 - x1, y2 - y1), 1.0))
        return most
