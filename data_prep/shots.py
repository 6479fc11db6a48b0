"""Finds the cuts of a clip while its frames pass by, so that tracking stops at a cut without a second decoding."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from data_prep.records import U8, Shot

SMALL_PX = 256
"""Longer side at which frames are compared, as PySceneDetect shrinks them: noise averages out, cuts do not."""


class CutDetector:
    """Mean absolute HSV difference of neighbouring frames against a threshold.

    The measure of PySceneDetect's ContentDetector (hue 0..179, saturation and value 0..255, equal weights), decided
    at once from two frames: a flash ends a shot too, which costs a window and never joins two people.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._last: U8 | None = None
        self.change = 0.0

    def is_cut(self, frame: U8) -> bool:
        """True when this u8[H,W,3] RGB frame opens a new shot; the first frame ever seen does not."""
        height_px, width_px = frame.shape[:2]
        scale = min(1.0, SMALL_PX / max(height_px, width_px))
        size = (max(1, round(width_px * scale)), max(1, round(height_px * scale)))
        hsv = cv2.cvtColor(cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR), cv2.COLOR_RGB2HSV)
        self.change = 0.0 if self._last is None else float(np.mean(cv2.absdiff(hsv, self._last)))
        self._last = np.asarray(hsv, np.uint8)
        return self.change >= self._threshold


def shots_between(cuts: Sequence[int], num_frames: int) -> tuple[Shot, ...]:
    """The shots of a clip: ``cuts`` holds the first frame of every shot but the first, ascending."""
    starts = [0, *cuts]
    return tuple(Shot(i, a, b) for i, (a, b) in enumerate(zip(starts, [*cuts, num_frames], strict=True)))
