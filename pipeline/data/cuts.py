"""What is taken of a sample: which frames, at what size, mirrored or not; decided before anything is computed.

A cut is a pure function of the seed, the sample's key and the number of the variant, so that it is the same whoever
asks, can be cached, and lies in the name of what is cached.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.records import U8, InputError
from pipeline.config import DataConfig

SIDED = re.compile(r"\b(left|right)", re.IGNORECASE)  # leftmost and right-hand too; not alright
BUCKET = re.compile(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)")


@dataclass(frozen=True)
class Outline:
    """What of a sample decides its cuts: its own size, and whether its caption stays true in a mirror."""

    num_frames: int
    height_px: int
    width_px: int
    mirrors: bool


@dataclass(frozen=True)
class Bucket:
    """A size that samples are brought to."""

    num_frames: int
    height_px: int
    width_px: int

    @classmethod
    def parse(cls, text: str) -> Bucket:
        """From FRAMESxHEIGHTxWIDTH; raises InputError."""
        found = BUCKET.fullmatch(text)
        if not found:
            raise InputError(
                f"data.buckets: came {text!r}; give FRAMESxHEIGHTxWIDTH in pixels, such as 41x480x832"
            )
        return cls(*map(int, found.groups()))

    def __str__(self) -> str:
        return f"{self.num_frames}x{self.height_px}x{self.width_px}"


@dataclass(frozen=True)
class Cut:
    """Frames ``start``, ``start + stride``, ... of a sample, cropped around the centre to the shape of height_px x
    width_px and resized to it; ``flip``: mirrored left to right."""

    start: int
    num_frames: int
    stride: int
    height_px: int
    width_px: int
    flip: bool

    @property
    def name(self) -> str:
        """Of what is kept for it; letters, digits and hyphens."""
        size = f"{self.num_frames}x{self.height_px}x{self.width_px}"
        return f"{size}-from{self.start}by{self.stride}" + ("-flip" if self.flip else "")

    @property
    def frames(self) -> slice:
        return slice(self.start, self.start + (self.num_frames - 1) * self.stride + 1, self.stride)

    def crop(self, height_px: int, width_px: int) -> tuple[int, int, int, int]:
        """top, left, height, width of what a picture of this size is cropped to, in pixels: the largest in the
        middle that has the cut's shape, to the pixel."""
        high = min(height_px, max(1, round(width_px * self.height_px / self.width_px)))
        wide = min(width_px, max(1, round(height_px * self.width_px / self.height_px)))
        return (height_px - high) // 2, (width_px - wide) // 2, high, wide

    def taken(self, frames: U8, labels: bool) -> U8:
        """u8[T,H,W,3] or, where they are ``labels``, u8[T,H,W], of a whole sample: what the cut takes of it.

        Pictures are averaged where they shrink and interpolated where they grow; labels take the nearest pixel.
        """
        top, left, high, wide = self.crop(*frames.shape[1:3])
        taken = frames[self.frames, top : top + high, left : left + wide]
        if (high, wide) != (self.height_px, self.width_px):
            shrinks = self.height_px < high
            how = cv2.INTER_NEAREST_EXACT if labels else cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
            size = (self.width_px, self.height_px)
            taken = np.stack([cv2.resize(frame, size, interpolation=how) for frame in taken])
        return np.ascontiguousarray(taken[:, :, ::-1] if self.flip else taken)


def stays_true_mirrored(caption: str) -> bool:
    """False where a caption speaks of left or right: any word that begins so."""
    return SIDED.search(caption) is None


def cut_of(config: DataConfig, seed: int, key: str, outline: Outline, variant: int) -> Cut:
    """The cut of one variant of one sample, in its best bucket, or at its own size where there are no buckets.

    Raises:
        InputError: no buckets, and too few frames; with buckets, use ``best_bucket`` first.
    """
    wanted = best_bucket(config, outline)
    if wanted is None:
        span = (config.num_frames - 1) * config.frame_stride + 1
        raise InputError(
            f"data.num_frames={config.num_frames} at data.frame_stride={config.frame_stride} needs {span} frames; "
            f"sample {key} has {outline.num_frames}: lower one of them, or prepare longer windows"
        )
    spare = outline.num_frames - ((wanted.num_frames - 1) * config.frame_stride + 1)
    start, mirror = _drawn(seed, key, variant)
    return Cut(
        start=spare // 2 if config.windows_per_sample == 1 else int(start * (spare + 1)),
        num_frames=wanted.num_frames,
        stride=config.frame_stride,
        height_px=wanted.height_px,
        width_px=wanted.width_px,
        flip=outline.mirrors and mirror < config.flip,
    )


def best_bucket(config: DataConfig, outline: Outline) -> Bucket | None:
    """The bucket that keeps most of a sample: the largest share of its frames times that of its picture; of equals
    the one with most pixels. None where the sample is too short for all, or would be enlarged more than
    ``data.max_upscale``."""
    own = Bucket(config.num_frames, outline.height_px, outline.width_px)
    fitting = [
        bucket
        for bucket in map(Bucket.parse, config.buckets or (str(own),))
        if (bucket.num_frames - 1) * config.frame_stride < outline.num_frames
        and _scale(bucket, outline) <= max(config.max_upscale, 1.0) + 1e-9
    ]
    return max(
        fitting,
        key=lambda b: (round(kept(config, outline, b), 6), b.num_frames * b.height_px * b.width_px),
        default=None,
    )


def kept(config: DataConfig, outline: Outline, bucket: Bucket) -> float:
    """Share of a sample that a bucket keeps, in (0,1]: of its frames, by the window's span, times its picture."""
    span = (bucket.num_frames - 1) * config.frame_stride + 1
    shapes = sorted([bucket.width_px * outline.height_px, bucket.height_px * outline.width_px])
    return span / outline.num_frames * (shapes[0] / shapes[1])


def _scale(bucket: Bucket, outline: Outline) -> float:
    """What a sample is resized by: the least that fills the bucket."""
    return max(bucket.height_px / outline.height_px, bucket.width_px / outline.width_px)


def _drawn(seed: int, key: str, variant: int) -> tuple[float, float]:
    """Two numbers in [0,1), of the window's start and of its mirroring."""
    digest = hashlib.sha256(f"cut/{seed}/{key}/{variant}".encode()).digest()
    first, second = (int.from_bytes(digest[at : at + 6], "big") / 2**48 for at in (0, 6))
    return first, second
