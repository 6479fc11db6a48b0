"""Tiles and landmarks against Pillow and a slow plain drawing; the order of the cast is the order of the tiles."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from data_prep.faces.geometry import TEMPLATE_PX
from pipeline.identity.canvas import COLOURS, LIMBS, canvases, draw_landmarks, tiles

SIZE = (40, 64)


def cast(num_slots: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures of coarse noise, and landmarks around the template's."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (1, num_slots, 7, 7, 3), generator=generator, dtype=torch.uint8)
    crops = coarse.repeat_interleave(16, 2).repeat_interleave(16, 3)
    return crops, torch.from_numpy(TEMPLATE_PX) + 6 * torch.randn(1, num_slots, 5, 2, generator=generator)


def slow_landmarks(points: np.ndarray, side: int) -> np.ndarray:
    """Each pixel asks every limb and point, in the order in which they are painted; f64[side,side,3] in [-1,1]."""
    tile = np.zeros((side, side, 3))
    for y in range(side):
        for x in range(side):
            here = np.array([x + 0.5, y + 0.5])
            for start, end in LIMBS:
                steps = points[start] + np.linspace(0, 1, 4001)[:, None] * (points[end] - points[start])
                if np.linalg.norm(steps - here, axis=1).min() <= max(0.5, 4 * side / 512):
                    tile[y, x] = 0.6 * np.array(COLOURS[start])
            for point, colour in zip(points, COLOURS, strict=True):
                if math.dist(point, here) <= max(1.0, 10 * side / 512):
                    tile[y, x] = colour
    return tile / 127.5 - 1


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_tiles_are_squares_in_their_cells_in_the_order_of_slots(count: int) -> None:
    height, width = SIZE
    columns = math.ceil(count**0.5)
    rows = math.ceil(count / columns)
    covered = np.zeros(SIZE, int)
    for k, (top, left, side) in enumerate(tiles(count, height, width)):
        assert side == min(height // rows, width // columns)
        assert top // (height // rows) == k // columns and left // (width // columns) == k % columns
        covered[top : top + side, left : left + side] += 1
    assert covered.max() == 1 and covered.sum() == count * side**2


def test_faces_are_what_pillow_makes_of_them_and_grey_is_between() -> None:
    crops, landmarks = cast(3)
    drawn = canvases(crops, landmarks, torch.ones(1, 3, dtype=torch.bool), SIZE)
    assert drawn.shape == (1, 2, 3, *SIZE)
    expected = np.full((*SIZE, 3), 127.5)
    for crop, (top, left, side) in zip(crops[0], tiles(3, *SIZE), strict=True):
        resized = Image.fromarray(crop.numpy()).resize((side, side), Image.Resampling.BILINEAR)
        expected[top : top + side, left : left + side] = resized
    found = (drawn[0, 0].permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(found - expected).max() <= 1.0  # Pillow rounds twice
    outside = np.ones(SIZE, bool)
    for top, left, side in tiles(3, *SIZE):
        outside[top : top + side, left : left + side] = False
    assert outside.any() and (drawn[0].numpy()[:, :, outside] == 0).all()


@pytest.mark.parametrize("side", [24, 60])
def test_landmarks_are_a_slow_plain_drawing_of_them(side: int) -> None:
    points = (cast(1)[1][0, 0] + 0.5) * side / 112
    found = draw_landmarks(points, side).permute(1, 2, 0).numpy()
    expected = slow_landmarks(points.double().numpy(), side)
    wrong = np.abs(found - expected).max(-1) > 1e-5
    assert wrong.mean() < 0.002  # pixels at the very rim
    assert (found.max(-1) > -1).mean() > 0.01


def test_permuting_the_cast_permutes_its_tiles_and_padding_moves_nothing() -> None:
    crops, landmarks = cast(4)
    mask, order = torch.ones(1, 4, dtype=torch.bool), torch.tensor([2, 0, 3, 1])
    plain = canvases(crops, landmarks, mask, SIZE)
    moved = canvases(crops[:, order], landmarks[:, order], mask, SIZE)
    places = list(tiles(4, *SIZE))
    for new, old in enumerate(order.tolist()):
        (top, left, side), (from_top, from_left, _) = places[new], places[old]
        assert torch.equal(
            moved[..., top : top + side, left : left + side],
            plain[..., from_top : from_top + side, from_left : from_left + side],
        )
    two = canvases(crops[:, :2], landmarks[:, :2], mask[:, :2], SIZE)
    padded = canvases(crops, landmarks, torch.tensor([[True, True, False, False]]), SIZE)
    assert torch.equal(two, padded)
    nobody = canvases(crops, landmarks, torch.zeros_like(mask), SIZE)
    assert not nobody.any()
