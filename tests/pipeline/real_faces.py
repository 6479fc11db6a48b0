"""Frames of the demo footage with the label map of its faces, for tests that need real ones."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from data_prep.records import U8


class Scene(NamedTuple):
    """frames: u8[T,H,W,3] RGB; labels: u8[T,H,W], 0 nobody, k the k-th of ``people``."""

    people: tuple[str, ...]
    frames: U8
    labels: U8


def read_scene(footage: Path, clip: str, at: tuple[int, ...]) -> Scene:
    """Frames ``at`` of a clip."""
    capture = cv2.VideoCapture(str(footage / "clips" / f"{clip}.mp4"))
    frames = []
    for frame in range(max(at) + 1):
        read, picture = capture.read()
        assert read, (clip, frame)
        if frame in at:
            frames.append(picture[..., ::-1])
    capture.release()
    with np.load(footage / "truth" / f"{clip}.npz") as truth:
        people, labels = tuple(str(name) for name in truth["people"]), truth["labels"][list(at)]
    return Scene(people, np.ascontiguousarray(np.stack(frames)), labels)


def as_video(frames: U8) -> torch.Tensor:
    """u8[T,H,W,3] to f32[1,3,T,H,W] in [-1,1]."""
    return torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
