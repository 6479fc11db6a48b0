"""How much a video moves, and how much it flickers beside that: two figures from one optical flow.

Motion is the mean length of the flow from each frame to the next. Flicker is what a pixel's luminance changes by
along its own path: the warping error of Lai et al. 2018 (arXiv 1808.00449, section 4.2), over the pixels whose
flow there and back agrees (Sundaram et al. 2010, eq. 5). VBench's temporal flickering (arXiv 2311.17982, appendix)
has no such path, so that whatever moves flickers; it is given beside ours, to compare with published tables.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from data_prep.records import F32, U8

LONG_SIDE_PX = 320  # of the pictures that flow is found on; a translation of 0.5 px in 1280 is still seen
# share of pixels whose flow there and back agrees, below which two frames are of different shots: inside the demo's
# shots 0.98 to 0.99, between shots of different places 0.02 to 0.46
MIN_FOLLOWED = 0.6
CUT_CHANGE = 16.0  # and levels of 255 by which the picture has changed, so that still noise is no cut


@dataclass(frozen=True)
class Movement:
    """motion: mean flow, in percent of the picture's longer side a frame; flicker: mean change of luminance along
    the flow, in levels of 255; vbench_flickering: 1 − mean |change| / 255 of all channels where they stand; cuts:
    their number, which are left out of the others. NaN where there is nothing to compare."""

    motion: float
    flicker: float
    vbench_flickering: float
    cuts: int


@dataclass
class MovementMeter:
    """Sees a video's frames in order and keeps the last one."""

    _sums: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    _pairs: int = 0
    _cuts: int = 0
    _last: U8 | None = None

    def __post_init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOpticalFlow_PRESET_MEDIUM)
        self._flow.setUseSpatialPropagation(False)  # with it, the answer depends on the number of threads

    def see(self, frames: U8) -> None:
        """The next frames, u8[n,H,W,3] RGB, all of one size."""
        for frame in frames:
            small = _shrunk(frame)
            if self._last is not None:
                self._compare(self._last, small)
            self._last = small

    def result(self) -> Movement:
        """The figures of what was seen."""
        means = self._sums / self._pairs if self._pairs else np.full(3, np.nan)
        motion, flicker, change = (float(value) for value in means)
        return Movement(100 * motion, flicker, 1 - change / 255, self._cuts)

    def _compare(self, before: U8, after: U8) -> None:
        grey, then = (_luminance(frame) for frame in (before, after))
        change = float(cv2.absdiff(before, after).mean())
        if min(grey.shape) < 16:  # smaller than the flow's patches
            forward = np.zeros((*grey.shape, 2), np.float32)
            backward = forward
        else:
            forward, backward = self._flow.calc(grey, then, None), self._flow.calc(then, grey, None)
        there, back = _follow(then, forward), _follow(backward, forward)
        followed = _agrees(forward, back)
        if followed.mean() < MIN_FOLLOWED and change > CUT_CHANGE:
            self._cuts += 1
            return
        length = float(np.hypot(forward[..., 0], forward[..., 1]).mean()) / max(grey.shape)
        levels = np.abs(there - grey)[followed]
        self._sums += (length, float(levels.mean()) if levels.size else 0.0, change)
        self._pairs += 1


def as_figures(movement: Movement) -> dict[str, float]:
    """The figures by name, without those that are NaN."""
    values = {
        "motion": movement.motion,
        "flicker": movement.flicker,
        "vbench_flickering": movement.vbench_flickering,
        "cuts": float(movement.cuts),
    }
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _shrunk(frame: U8) -> U8:
    height, width = frame.shape[:2]
    scale = LONG_SIDE_PX / max(height, width)
    if scale >= 1:
        return frame
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def _luminance(frame: U8) -> U8:
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)


def _follow(values: U8 | F32, flow: F32) -> F32:
    """``values`` [H,W] or [H,W,2] at the ends of a flow f32[H,W,2], f32; those of the border beyond it."""
    height, width = flow.shape[:2]
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    where = (columns + flow[..., 0], rows + flow[..., 1])
    found = cv2.remap(values, *where, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, np.float32)


def _agrees(forward: F32, back: F32) -> npt.NDArray[np.bool_]:
    """bool[H,W]: pixels that come back to where they were, and stay inside the picture."""
    height, width = forward.shape[:2]
    gone = ((forward + back) ** 2).sum(-1)
    lengths = (forward**2).sum(-1) + (back**2).sum(-1)
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    x, y = columns + forward[..., 0], rows + forward[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return np.asarray((gone < 0.01 * lengths + 0.5) & inside)
