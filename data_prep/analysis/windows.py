"""Which frames make a training window, how a frame is cut to the bucket's shape, and recording while they pass."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.config import WindowConfig
from data_prep.records import F32, F64, I32, U8
from data_prep.video.encode import encode_mp4


def window_starts(num_frames: int, config: WindowConfig) -> range:
    """Where windows start in a shot of this many frames: every ``hop``, as long as they fit."""
    return range(0, num_frames - _reach(config) + 1, config.hop)


def open_starts(offset: int, config: WindowConfig) -> list[int]:
    """Starts of the windows that use the frame this far into a shot whose end is not known yet."""
    first = max(0, -(-(offset - _reach(config) + 1) // config.hop)) * config.hop
    return [s for s in range(first, offset + 1, config.hop) if (offset - s) % config.stride == 0]


def _reach(config: WindowConfig) -> int:
    """Frames from a window's first to its last, both counted."""
    return (config.num_frames - 1) * config.stride + 1


@dataclass(frozen=True)
class Framing:
    """The largest centred part of a frame with the bucket's aspect: left, top, width, height in frame pixels."""

    left_px: int
    top_px: int
    crop_width_px: int
    crop_height_px: int
    width_px: int
    height_px: int

    @classmethod
    def of(cls, frame_width_px: int, frame_height_px: int, config: WindowConfig) -> Framing:
        """For frames of one size and the bucket of ``config``."""
        scale = max(config.width_px / frame_width_px, config.height_px / frame_height_px)
        width = min(frame_width_px, round(config.width_px / scale))
        height = min(frame_height_px, round(config.height_px / scale))
        left, top = (frame_width_px - width) // 2, (frame_height_px - height) // 2
        return cls(left, top, width, height, config.width_px, config.height_px)

    def image(self, frame: U8) -> U8:
        """u8[H,W,3] of the bucket's size; area-averaged, since it nearly always shrinks."""
        part = frame[
            self.top_px : self.top_px + self.crop_height_px, self.left_px : self.left_px + self.crop_width_px
        ]
        return np.asarray(
            cv2.resize(part, (self.width_px, self.height_px), interpolation=cv2.INTER_AREA), np.uint8
        )

    def points(self, xy_px: F32) -> F32:
        """f32[...,2] frame pixels → pixels of the bucket's image."""
        scale = np.array(
            [self.width_px / self.crop_width_px, self.height_px / self.crop_height_px], np.float32
        )
        return np.asarray((xy_px - np.array([self.left_px, self.top_px], np.float32)) * scale, np.float32)


@dataclass(frozen=True)
class Recorded:
    """A window that has passed. frames: int32[T]; mp4: encoded at the bucket's size."""

    frames: I32
    mp4: bytes


class WindowRecorder:
    """Encodes every window of a shot as soon as its last frame passes, so that only open windows are held."""

    def __init__(self, framing: Framing, config: WindowConfig, times_s: F64) -> None:
        """times_s: f64[F] presentation time of each of the clip's frames, for the windows' own rates."""
        self._framing = framing
        self._config = config
        self._times_s = times_s
        self._open: dict[int, list[U8]] = {}

    def see(self, frame: int, offset: int, image: U8) -> tuple[bool, list[Recorded]]:
        """Takes the frame that lies ``offset`` into its shot; whether a window uses it, and what it completes."""
        starts = open_starts(offset, self._config)
        if not starts:
            return False, []
        small = self._framing.image(image)
        for start in starts:
            self._open.setdefault(start, []).append(small)
        done = [s for s in starts if len(self._open[s]) == self._config.num_frames]
        return True, [self._recorded(frame - offset + start, self._open.pop(start)) for start in done]

    def cut(self) -> None:
        """Drops what is open: no window crosses a cut."""
        self._open = {}

    def _recorded(self, first: int, images: list[U8]) -> Recorded:
        frames = (first + np.arange(len(images)) * self._config.stride).astype(np.int32)
        span_s = float(self._times_s[frames[-1]] - self._times_s[frames[0]])
        return Recorded(frames, encode_mp4(np.stack(images), (len(frames) - 1) / span_s))
