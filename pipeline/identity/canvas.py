"""A cast's pictures as two canvases of the video's size: its faces side by side, and their landmarks drawn.

ConsisID (arXiv 2411.17440), section 3.2, does so for one face, which it stretches over the whole picture; here
every character of the cast has a tile, in slot order, and keeps its shape. Landmarks are drawn as there (five
points, each eye and mouth corner joined to the nose, on black), in the tile of the face that they are of.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch.nn import functional

CROP_PX = 112
LIMBS = ((0, 2), (1, 2), (3, 2), (4, 2))  # of the five points: eyes and mouth corners to the nose
COLOURS = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 0),
    (255, 0, 255),
)  # of the points, and their limbs
LIMB_SHADE = 0.6  # limbs are that much darker than points
LIMB_RADIUS, POINT_RADIUS = 4 / 512, 10 / 512  # of a tile's side: ConsisID draws 4 and 10 px into 512
LEAST_LIMB_PX, LEAST_POINT_PX = 0.5, 1.0  # in small tiles, which would lose them


def canvases(
    crops: torch.Tensor, landmarks: torch.Tensor, mask: torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """Faces and landmarks of B casts of up to N characters.

    Args:
        crops: u8[B,N,112,112,3] RGB.
        landmarks: f32[B,N,5,2], x y in pixels of the crop: eyes, nose, mouth corners, image left first.
        mask: bool[B,N], the slots that are filled; tiles are laid out for those alone, so padding moves nothing.
        size: height and width, in pixels.

    Returns:
        f32[B,2,3,height,width] in [-1,1]: first the faces, then the landmarks; grey, 0, outside the tiles.
    """
    drawn = torch.zeros(len(crops), 2, 3, *size, device=crops.device)
    for canvas, faces, points, filled in zip(drawn, crops, landmarks, mask, strict=True):
        slots = filled.nonzero()[:, 0].tolist()
        for slot, (top, left, side) in zip(slots, tiles(len(slots), *size), strict=True):
            place = (slice(None), slice(top, top + side), slice(left, left + side))
            canvas[0][place] = _resized(faces[slot], side)
            canvas[1][place] = draw_landmarks((points[slot] + 0.5) * (side / CROP_PX), side)
    return drawn


def tiles(count: int, height: int, width: int) -> Iterator[tuple[int, int, int]]:
    """Top, left and side, in pixels, of so many squares, row by row in ⌈√count⌉ columns, each in the middle of its
    cell."""
    columns = math.ceil(math.sqrt(count))
    rows = -(-count // columns) if count else 0
    for k in range(count):
        high, wide = height // rows, width // columns
        side = min(high, wide)
        yield (k // columns) * high + (high - side) // 2, (k % columns) * wide + (wide - side) // 2, side


def draw_landmarks(points: torch.Tensor, side: int) -> torch.Tensor:
    """Five points f32[5,2], x y from the corner of a square tile of ``side`` pixels: f32[3,side,side] in [-1,1]."""
    centres = torch.arange(side, device=points.device) + 0.5
    pixels = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1)  # [side,side,2], x y
    tile = torch.full((3, side, side), -1.0, device=points.device)
    limb_px = max(LIMB_RADIUS * side, LEAST_LIMB_PX)
    for start, end in LIMBS:
        near = _distance(pixels, points[start], points[end]) <= limb_px
        tile = torch.where(near, _colour(tile, COLOURS[start], LIMB_SHADE), tile)
    for point, colour in zip(points, COLOURS, strict=True):
        near = _distance(pixels, point, point) <= max(POINT_RADIUS * side, LEAST_POINT_PX)
        tile = torch.where(near, _colour(tile, colour, 1.0), tile)
    return tile


def _resized(crop: torch.Tensor, side: int) -> torch.Tensor:
    """u8[112,112,3] to f32[3,side,side] in [-1,1]."""
    picture = crop.permute(2, 0, 1)[None].float()
    resized = functional.interpolate(picture, size=(side, side), mode="bilinear", antialias=True)
    return resized[0] / 127.5 - 1


def _distance(pixels: torch.Tensor, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """f32[H,W]: how far each pixel's centre is from the line between two points."""
    along = end - start
    share = ((pixels - start) @ along / along.square().sum().clamp(min=1e-9)).clamp(0, 1)
    apart: torch.Tensor = (pixels - start - share[..., None] * along).norm(dim=-1)
    return apart


def _colour(like: torch.Tensor, colour: tuple[int, int, int], shade: float) -> torch.Tensor:
    """f32[3,1,1] in [-1,1]."""
    return like.new_tensor([shade * value / 127.5 - 1 for value in colour]).view(3, 1, 1)
