"""What lies behind the people, as views of the frame's size."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.footage.media import Media
from data_prep.footage.motion import back_and_forth
from data_prep.footage.places import Backdrop
from data_prep.footage.scenes import HEIGHT_PX, WIDTH_PX
from data_prep.records import U8

WOOD = ("coffee.png", 0, 64, 180, 400)  # media, left, right, top, bottom: a corner with nothing but table


@dataclass(frozen=True)
class Scenery:
    """A backdrop, read and enlarged so that the view can glide over it. pictures: N of u8[H,W,3] RGB."""

    pictures: tuple[U8, ...]
    drift_px: float

    def view(self, frame: int, at: float) -> U8:
        """u8[540,960,3], a fresh copy: what is behind a frame, at the time ``at`` in [0,1] of its shot."""
        picture = self.pictures[back_and_forth(frame, len(self.pictures))]
        shift = np.array([[1, 0, -self.drift_px * at], [0, 1, -self.drift_px / 2]], np.float64)
        view = cv2.warpAffine(picture, shift, (WIDTH_PX, HEIGHT_PX), flags=cv2.INTER_LINEAR)
        return np.asarray(view, np.uint8)


def build(backdrop: Backdrop, media: Media) -> Scenery:
    """Read a backdrop's picture or frames, cover the view with it, blur and tint it."""
    return Scenery(tuple(_finish(p, backdrop) for p in _read(backdrop, media)), backdrop.drift_px)


def wood(media: Media) -> U8:
    """u8[540,960,3]: a table top, seen from the front, darker towards the camera."""
    name, left, right, top, bottom = WOOD
    plank = cv2.resize(
        media.picture(name)[top:bottom, left:right], (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_CUBIC
    )
    shade = np.linspace(0.8, 0.2, HEIGHT_PX)[:, None, None]
    shade[:3] = 0.3  # its edge
    return np.asarray(plank * shade, np.uint8)


def _read(backdrop: Backdrop, media: Media) -> list[U8]:
    if not backdrop.media:
        ramp = np.linspace(0, 1, HEIGHT_PX)[:, None, None]
        column = (1 - ramp) * np.array(backdrop.top) + ramp * np.array(backdrop.bottom)
        return [np.asarray(np.tile(column, (1, WIDTH_PX, 1)), np.uint8)]
    if media.is_film(backdrop.media):
        return media.frames(backdrop.media, backdrop.start, backdrop.num_frames)
    return [media.picture(backdrop.media)]


def _finish(picture: U8, backdrop: Backdrop) -> U8:
    height, width = picture.shape[:2]
    room = abs(backdrop.drift_px)
    scale = max((WIDTH_PX + room) / width, (HEIGHT_PX + room) / height)
    size = (int(np.ceil(width * scale)), int(np.ceil(height * scale)))
    covered = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    if backdrop.blur_px:
        covered = cv2.GaussianBlur(covered, (0, 0), backdrop.blur_px)
    return np.asarray(np.clip(covered * np.array(backdrop.tint), 0, 255), np.uint8)
