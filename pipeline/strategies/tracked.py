"""Face-aware attention along tracked regions: what lies on a face reads that face in the other frames first.

Kling 1.6 is described so; nothing of it is published. Ours: each visual token belongs to the face region that
covers most of it, or to none. In every self-attention the scores of a region's tokens against all tokens outside
it lose ``strategy.bias`` (at infinity they are out of reach); tokens of no region read as they always do. Regions
are a layout over time, or where a first look, the same video in few steps, shows faces, followed by the overlap
of their boxes from frame to frame. It keeps one mask of L x L numbers for L visual tokens.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from data_prep.records import F32, U8, InputError
from data_prep.tracks import iou
from pipeline.config import GenerateConfig
from pipeline.families.contract import LatentGrid
from pipeline.generate import Scene
from pipeline.strategies.studio import Draw, Studio

LOOKED_AT_PX = 640  # frames are enlarged to this long side first: detectors miss faces below some 24 px
SAME_FACE = 0.3  # least overlap of boxes in successive frames
GROWTH = 0.15  # of a box on each side: it ends at the chin and the hair line
MASK = "attention_mask"  # what diffusers' attentions call what is added to scores


class Tracked:
    """``Strategy``: self-attention that stays with a face."""

    def check(self, studio: Studio, scene: Scene, config: GenerateConfig) -> None:
        """Raise InputError for a family whose attention takes no mask."""
        if not studio.model.family.self_attentions:
            raise InputError(
                f"strategy tracked: the {studio.model.config.family.name} family's attention takes no mask of this "
                "size; tiny and wan do; leave tracked out of strategy.name"
            )

    def around(self, studio: Studio, draw: Draw) -> Draw:
        """Drawing with the regions' tokens held together."""

        def followed(scene: Scene, config: GenerateConfig) -> U8:
            chosen = config.strategy
            if chosen.bias == 0:
                return draw(scene, config)
            family = studio.model.family
            if scene.layout is None:
                regions = regions_of(draw(scene, replace(config, steps=chosen.look_steps)), chosen.face_pack)
                studio.notes["faces"] = int(regions.max())
            else:
                shape = (config.num_frames, config.height_px, config.width_px)
                regions = np.broadcast_to(scene.layout, shape)
            region = token_regions(regions, family.grid)
            with held_together(family.self_attentions, region, chosen.bias):
                return draw(scene, config)

        return followed


def regions_of(frames: U8, pack: str) -> U8:
    """u8[T,H,W]: k where the k-th face that was seen is, followed from frame to frame, 0 elsewhere.

    frames: u8[T,H,W,3] RGB. Raises InputError where no face is seen at all.
    """
    boxes = [_faces(frame, pack) for frame in frames]
    regions = np.zeros(frames.shape[:3], np.uint8)
    for region, found, numbers in zip(regions, boxes, _followed(boxes), strict=True):
        for (x1, y1, x2, y2), number in zip(_grown(found), numbers, strict=True):
            region[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = number
    if not regions.any():
        raise InputError(
            "strategy tracked: the first look shows no face; give --layout, more strategy.look_steps, or leave "
            "tracked out of strategy.name"
        )
    return regions


def token_regions(regions: U8, grid: LatentGrid) -> torch.Tensor:
    """i64[L]: the region u8[T,H,W] that covers most of each visual token, 0 none."""
    num = max(int(regions.max()), 1)
    shares = grid.tokens(grid.coverage(torch.from_numpy(regions.copy())[None], num))[0]  # [N,L]
    return torch.cat([1 - shares.sum(0, keepdim=True), shares]).argmax(0)


def mask_of(region: torch.Tensor, bias: float, dtype: torch.dtype) -> torch.Tensor:
    """[1,1,L,L] to add to scores, or, at an infinite bias, bool of what is read: for each token (row) of a region
    the tokens (columns) outside it are less by ``bias``."""
    apart = (region[:, None] != region[None]) & (region[:, None] > 0)
    mask = ~apart if math.isinf(bias) else apart.to(dtype) * -bias
    return mask[None, None]


@contextmanager
def held_together(attentions: Sequence[nn.Module], region: torch.Tensor, bias: float) -> Iterator[None]:
    """Within it these self-attentions hold the tokens of each region i64[L] together."""
    hook = _MaskHook(region, bias, {})
    handles = [
        attention.register_forward_pre_hook(hook, with_kwargs=True, prepend=True) for attention in attentions
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class _MaskHook:
    """The forward pre-hook of a self-attention. made: the mask by dtype and device, once for all blocks."""

    region: torch.Tensor
    bias: float
    made: dict[tuple[torch.dtype, torch.device], torch.Tensor]

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = inspect.signature(module.forward).bind(*args, **kwargs)
        hidden: torch.Tensor = given.args[0]
        key = hidden.dtype, hidden.device
        if key not in self.made:
            self.made[key] = mask_of(self.region.to(hidden.device), self.bias, hidden.dtype)
        given.arguments[MASK] = self.made[key]
        return given.args, given.kwargs


def _faces(frame: U8, pack: str) -> F32:
    """f32[n,4] boxes x1 y1 x2 y2, in the frame's own pixels."""
    import cv2

    from data_prep.faces import analyser_for

    scale = max(1.0, LOOKED_AT_PX / max(frame.shape[:2]))
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    image = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    found = [face.box_px / scale for face in analyser_for(pack).detect(image)]
    return np.asarray(found, np.float32).reshape(-1, 4)


def _followed(boxes: Sequence[F32]) -> list[list[int]]:
    """A number from 1 for each box: the same one where it overlaps a box of the frame before (Hungarian)."""
    numbers: list[list[int]] = []
    new = 1
    for t, now in enumerate(boxes):
        mine = [0] * len(now)
        if t and len(now) and len(boxes[t - 1]):
            overlap = iou(boxes[t - 1], now)
            for before, after in zip(*linear_sum_assignment(overlap, maximize=True), strict=True):
                if overlap[before, after] >= SAME_FACE:
                    mine[after] = numbers[-1][before]
        for face, number in enumerate(mine):
            if number == 0 and new < 255:
                mine[face], new = new, new + 1
        numbers.append(mine)
    return numbers


def _grown(boxes: F32) -> list[list[int]]:
    """Boxes f32[n,4] by GROWTH larger on each side, in whole pixels."""
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2) * (-GROWTH, -GROWTH, GROWTH, GROWTH)
    grown: list[list[int]] = (boxes + sides).round().astype(int).tolist()
    return grown
