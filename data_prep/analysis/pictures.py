"""What every frame of a clip looks like, measured while the frames pass by and judged later
(``data_prep.analysis.quality``).

Exposure, borders and colour are those of UltraVideo's filters (arXiv 2506.13691), seen on a thumbnail whose pixels
are interpolated, not averaged, so that shares of extreme pixels stay what they are. All of it costs 1 ms a frame.
"""

from __future__ import annotations

import cv2
import numpy as np

from data_prep.analysis.text_area import TextDetector
from data_prep.records import F32, U8, FrameMeasures

BRIGHT, DARK = 250, 5
"""Pixels above or below say nothing any more (UltraVideo)."""
BORDER = 0.03
"""Share of a side that its border strip covers (UltraVideo)."""
PATCH_PX = 256
"""Side of the patches of which the stillest counts (NeMo Curator's motion filter), in pixels of the source."""
SHARPNESS_EVERY, TEXT_EVERY = 8, 24
"""Frames between measurements that need the whole picture; blur and captions stay for longer than that."""


class PictureMeter:
    """Measures frames in order; ``finish`` gives what was measured."""

    def __init__(self, scale: float, patches: tuple[int, int], text: TextDetector | None) -> None:
        """scale: pixels of the analysed frame per pixel of the thumbnail; patches: columns and rows of PATCH_PX
        that the source has, at least one; text: None measures no text."""
        self._scale, self._patches, self._text = scale, patches, text
        self._rows: list[tuple[float, ...]] = []
        self._moved: F32 | None = None
        self._num_moved = 0
        self._stillest_px: list[float] = []

    def see(self, offset: int, image: U8, thumb: U8, flow: F32) -> None:
        """The frame ``offset`` into its shot: u8[H,W,3], its thumbnail u8[h,w,3], and f32[h,w,2] what moved since
        the frame before."""
        if offset == 0 and self._rows:
            self._end_shot()
        length = np.linalg.norm(flow, axis=-1)
        if offset > 0:
            self._moved = length if self._moved is None else self._moved + length
            self._num_moved += 1
        self._rows.append(
            (
                clipped(thumb),
                darkest_border(thumb),
                colour(thumb),
                blur(image) if offset % SHARPNESS_EVERY == 0 else float("nan"),
                float(length.mean()) * self._scale if offset > 0 else float("nan"),
                self._text(image) if self._text and offset % TEXT_EVERY == 0 else float("nan"),
            )
        )

    def finish(self) -> FrameMeasures:
        """After the last frame of the clip."""
        self._end_shot()
        clipped, border, colour, sharpness, motion_px, text = np.array(self._rows, np.float32).T.copy()
        stillest_px = np.array(self._stillest_px, np.float32)
        return FrameMeasures(clipped, border, colour, sharpness, motion_px, text, stillest_px)

    def _end_shot(self) -> None:
        moved, self._moved = self._moved, None
        num_moved, self._num_moved = self._num_moved, 0
        if moved is None:
            self._stillest_px.append(float("nan"))
            return
        mean_px = cv2.resize(moved, self._patches, interpolation=cv2.INTER_AREA) / num_moved * self._scale
        self._stillest_px.append(float(mean_px.min()))


def clipped(picture: U8) -> float:
    """Share of u8[h,w,3]'s pixels whose brightness is above BRIGHT or below DARK."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return float(((grey > BRIGHT) | (grey < DARK)).mean())


def darkest_border(picture: U8) -> float:
    """Mean brightness, 0..255, of the darkest of the four border strips."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    high, wide = (max(1, round(BORDER * side)) for side in grey.shape)
    strips = (grey[:high], grey[-high:], grey[:, :wide], grey[:, -wide:])
    return min(float(strip.mean()) for strip in strips)


def colour(picture: U8) -> float:
    """Mean over the pixels of the variance over red, green and blue: 0 for a grey picture.

    The variance of three numbers is the sum of the squares of their three differences, over nine.
    """
    red, green, blue = cv2.split(picture)
    squares = sum(
        cv2.norm(one, other, cv2.NORM_L2SQR) for one, other in ((red, green), (green, blue), (blue, red))
    )
    return float(squares / (9 * red.size))


def blur(image: U8) -> float:
    """Variance of the Laplacian of the grey picture at its own size; small is blurred."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    _, deviation = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))
    return float(deviation[0, 0] ** 2)
