"""Who draws a first frame from its caption: a collage of the cast's pictures, or a text-to-image pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.records import U8, InputError
from pipeline.config import GenerateConfig, StrategyConfig
from pipeline.generate import Scene

Painter = Callable[[str, Scene, GenerateConfig], U8]
"""A caption, the scene and how it is drawn to a picture u8[H,W,3] RGB of the video's size."""

FACE_SHARE = (
    0.5  # of the height, and of a person's share of the width at most twice that: a head and shoulders shot
)
GREY = 128  # of a plain background
CELLS = 16  # text-to-image pipelines take multiples of this in pixels


@dataclass(frozen=True)
class Collage:
    """The embedded painter, ours: each character's picture on a background, from left to right in the cast's order,
    or where a layout has its slot first. It needs no model and shows who is there, not what happens."""

    background: str = ""

    def __call__(self, caption: str, scene: Scene, config: GenerateConfig) -> U8:
        """Raises InputError without pictures, or for a background that is none."""
        import cv2

        if scene.faces is None:
            raise InputError(
                "strategy.painter=collage: there is no picture of the cast; name characters with --cast, of a "
                "bank that keeps pictures (one of an earlier version does not), give --anchor, or take "
                "strategy.painter=diffusers"
            )
        canvas = self._ground(config)
        for (x1, y1, x2, y2), face in zip(_places(scene, config), scene.faces, strict=True):
            canvas[y1:y2, x1:x2] = cv2.resize(face, (x2 - x1, y2 - y1), interpolation=cv2.INTER_AREA)
        return canvas

    def _ground(self, config: GenerateConfig) -> U8:
        import cv2

        if not self.background:
            return np.full((config.height_px, config.width_px, 3), GREY, np.uint8)
        found = cv2.imread(self.background, cv2.IMREAD_COLOR) if Path(self.background).is_file() else None
        if found is None:
            raise InputError(f"strategy.background={self.background}: not a picture file; give a PNG or JPEG")
        return _fitted(np.asarray(found[..., ::-1], np.uint8), config)


def _places(scene: Scene, config: GenerateConfig) -> list[tuple[int, int, int, int]]:
    """x1 y1 x2 y2 of each face, square and inside the picture."""
    assert scene.faces is not None
    num, height, width = len(scene.faces), config.height_px, config.width_px
    side = round(min(FACE_SHARE * height, 2 * FACE_SHARE * width / num * 0.8, height, width))
    first = None if scene.layout is None else scene.layout if scene.layout.ndim == 2 else scene.layout[0]
    found = []
    for k in range(num):
        x, y, own = width * (k + 0.5) / num, height * 0.45, side
        if first is not None and (first == k + 1).any():
            rows, columns = np.nonzero(first == k + 1)
            x, y = (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2
            own = min(int(np.ptp(rows)), int(np.ptp(columns))) + 1
        left = int(min(max(round(x - own / 2), 0), width - own))
        top = int(min(max(round(y - own / 2), 0), height - own))
        found.append((left, top, left + own, top + own))
    return found


@dataclass(frozen=True)
class TextToImage:
    """A text-to-image pipeline of diffusers, read when it is asked and dropped after."""

    name: str
    steps: int

    def __call__(self, caption: str, scene: Scene, config: GenerateConfig) -> U8:
        """The same picture for the same seed. Raises InputError for what is no such pipeline."""
        import torch
        from diffusers import AutoPipelineForText2Image, DiffusionPipeline

        cuda = torch.cuda.is_available()
        dtype = torch.bfloat16 if cuda else torch.float32
        try:
            try:
                pipeline: Any = AutoPipelineForText2Image.from_pretrained(self.name, dtype=dtype)
            except ValueError:  # a class that diffusers does not list there
                pipeline = DiffusionPipeline.from_pretrained(self.name, dtype=dtype)
        except (OSError, ValueError) as error:
            raise InputError(
                f"strategy.painter_model={self.name}: {str(error).splitlines()[0]}; give the hub id or folder of a "
                "text-to-image pipeline of diffusers, or strategy.painter=collage"
            ) from error
        pipeline.set_progress_bar_config(disable=True)
        if cuda:
            pipeline.enable_model_cpu_offload()
        height, width = (-(-side // CELLS) * CELLS for side in (config.height_px, config.width_px))
        drawn = pipeline(
            prompt=caption,
            height=height,
            width=width,
            num_inference_steps=self.steps,
            generator=torch.Generator().manual_seed(config.seed),
        )
        return _fitted(np.asarray(drawn.images[0].convert("RGB"), np.uint8), config)


def _fitted(picture: U8, config: GenerateConfig) -> U8:
    """A picture u8[h,w,3] scaled until it covers the video's size, and its middle."""
    import cv2

    height, width = config.height_px, config.width_px
    scale = max(height / picture.shape[0], width / picture.shape[1])
    size = (max(round(picture.shape[1] * scale), width), max(round(picture.shape[0] * scale), height))
    scaled = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    top, left = (size[1] - height) // 2, (size[0] - width) // 2
    return np.ascontiguousarray(scaled[top : top + height, left : left + width], np.uint8)


PAINTERS: dict[str, Callable[[StrategyConfig], Painter]] = {
    "collage": lambda config: Collage(config.background),
    "diffusers": lambda config: TextToImage(config.painter_model, config.painter_steps),
}
