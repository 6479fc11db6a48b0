"""Finds the cuts of a clip while its frames pass by, so that tracking stops at a cut without a second decoding.

The detectors are PySceneDetect's, fed with our frames: it would decode by itself, and once more. Gradual
transitions have no frame where they happen and are found by none of them; the tracker's own check for strangers is
what keeps two people apart in a dissolve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from data_prep.config import ShotConfig
from data_prep.records import U8, Shot

if TYPE_CHECKING:
    from scenedetect.detector import SceneDetector

SMALL_PX = 256
"""Longer side at which frames are compared, as PySceneDetect shrinks them: noise averages out, cuts do not."""


def thumbnail(frame: U8) -> U8:
    """u8[h,w,3] of u8[H,W,3], its longer side at most SMALL_PX: what cuts, motion and picture quality are seen
    on."""
    height_px, width_px = frame.shape[:2]
    scale = min(1.0, SMALL_PX / max(height_px, width_px))
    size = (max(1, round(width_px * scale)), max(1, round(height_px * scale)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR), np.uint8)


class CutFinder:
    """One of PySceneDetect's detectors. It may need later frames to decide about one: ``delay`` of them.

    A shot may be one frame long: a flash ends a shot, which costs a window and never joins two people.
    """

    def __init__(self, config: ShotConfig) -> None:
        self._detector = DETECTORS[config.detector](config.threshold)
        self.delay = int(self._detector.event_buffer_length)
        self._num_seen = 0
        self._cuts: set[int] = set()

    def see(self, thumb: U8) -> None:
        """The next frame, u8[h,w,3] RGB, as ``thumbnail`` makes it."""
        from scenedetect.common import FrameTimecode

        at = FrameTimecode(
            self._num_seen, 1.0
        )  # a count is all that is asked of it; the rate has no part in it
        bgr = np.ascontiguousarray(thumb[..., ::-1])
        self._cuts.update(int(cut.frame_num) for cut in self._detector.process_frame(at, bgr))
        self._num_seen += 1

    def is_cut(self, frame: int) -> bool:
        """Whether a frame opens a new shot; known once ``delay`` more were seen, or there are no more."""
        return frame in self._cuts


def _content(threshold: float) -> SceneDetector:
    from scenedetect.detectors import ContentDetector

    return ContentDetector(threshold=threshold or 27.0, min_scene_len=0)


def _adaptive(threshold: float) -> SceneDetector:
    from scenedetect.detectors import AdaptiveDetector

    return AdaptiveDetector(adaptive_threshold=threshold or 3.0, min_scene_len=1)


def _histogram(threshold: float) -> SceneDetector:
    from scenedetect.detectors import HistogramDetector

    return HistogramDetector(threshold=threshold or 0.05, min_scene_len=1)


DETECTORS: Mapping[str, Callable[[float], SceneDetector]] = {
    "content": _content,
    "adaptive": _adaptive,
    "histogram": _histogram,
}
"""By ``shots.detector``; each takes its threshold, 0 for PySceneDetect's own default."""


def shots_between(cuts: Sequence[int], num_frames: int) -> tuple[Shot, ...]:
    """The shots of a clip: ``cuts`` holds the first frame of every shot but the first, ascending."""
    starts = [0, *cuts]
    return tuple(Shot(i, a, b) for i, (a, b) in enumerate(zip(starts, [*cuts, num_frames], strict=True)))
