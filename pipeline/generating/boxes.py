"""Where each of a cast is over time, as boxes at key frames, and the label maps that they make.

Between two key frames a box moves linearly, each of its sides by itself; before its first and after its last it
stays as there. A box of null says that the character is away from this frame until the next key frame; who comes
back is at once where that says. Where boxes overlap, the later of the cast is in front.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from data_prep.records import U8, InputError

Box = tuple[float, float, float, float]
FORM = '{"anna": [{"frame": 0, "box": [left, top, right, bottom]}, {"frame": 8, "box": null}]}'


@dataclass(frozen=True)
class Key:
    """A key frame. box: left, top, right, bottom in shares of width and height; None: away from here on."""

    frame: int
    box: Box | None


def parse_boxes(read: Any, cast: Sequence[str], num_frames: int) -> dict[str, tuple[Key, ...]]:
    """Key frames by name out of JSON; raises InputError for what is none, and for who is not of the cast."""
    if not isinstance(read, Mapping):
        raise InputError(
            f"layout: a {type(read).__name__} came; boxes over time are an object such as {FORM}"
        )
    strangers = [name for name in read if name not in cast]
    if strangers:
        raise InputError(
            f"layout: boxes of {', '.join(map(str, strangers))}; the cast is {', '.join(cast) or 'nobody'}"
        )
    return {name: _keys(name, rows, num_frames) for name, rows in read.items()}


def box_at(keys: Sequence[Key], frame: int) -> Box | None:
    """Of one character at one frame, by the rule above."""
    if frame <= keys[0].frame:
        return keys[0].box
    for before, after in pairwise(keys):
        if frame < after.frame:
            if before.box is None or after.box is None:
                return before.box
            share = (frame - before.frame) / (after.frame - before.frame)
            left, top, right, bottom = (
                (1 - share) * a + share * b for a, b in zip(before.box, after.box, strict=True)
            )
            return left, top, right, bottom
    return keys[-1].box


def paint(boxes: Mapping[str, Sequence[Key]], cast: Sequence[str], size: tuple[int, int, int]) -> U8:
    """The label map u8[T,H,W] of ``size`` (T, H, W): k where the centre of a pixel lies in the box of the k-th."""
    num_frames, height, width = size
    labels = np.zeros(size, np.uint8)
    ys, xs = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    for slot, name in enumerate(cast, 1):
        for frame in range(num_frames if name in boxes else 0):
            box = box_at(boxes[name], frame)
            if box is not None:
                rows, columns = (box[1] <= ys) & (ys < box[3]), (box[0] <= xs) & (xs < box[2])
                labels[frame][np.ix_(rows, columns)] = slot
    return labels


def _keys(name: str, rows: Any, num_frames: int) -> tuple[Key, ...]:
    if not isinstance(rows, list) or not rows:
        raise InputError(f"layout: {name}: give a list of key frames, as in {FORM}")
    keys = tuple(_key(name, row, num_frames) for row in rows)
    if any(a.frame >= b.frame for a, b in pairwise(keys)):
        raise InputError(f"layout: {name}: frames {', '.join(str(k.frame) for k in keys)}; they must rise")
    return keys


def _key(name: str, row: Any, num_frames: int) -> Key:
    said = f"layout: {name}: {row!r}"
    if not isinstance(row, Mapping) or set(row) != {"frame", "box"}:
        raise InputError(f"{said}; a key frame has frame and box, as in {FORM}")
    frame, box = row["frame"], row["box"]
    if not isinstance(frame, int) or not 0 <= frame < num_frames:
        raise InputError(f"{said}; frame is a number from 0 to {num_frames - 1} of this video")
    if box is None:
        return Key(frame, None)
    numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(x, int | float) for x in box)
    if not numbers or not all(math.isfinite(x) for x in box) or not (box[0] < box[2] and box[1] < box[3]):
        raise InputError(
            f"{said}; a box is left < right and top < bottom in shares of width and height, or null"
        )
    left, top, right, bottom = map(float, box)
    if min(left, top) < 0 or max(right, bottom) > 1:
        raise InputError(f"{said}; the picture ends at 0 and 1: shares of width and height, not pixels")
    return Key(frame, (left, top, right, bottom))
