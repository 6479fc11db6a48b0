"""Masks fall into the latent cells that encode their pixels, with and without compression of time."""

from __future__ import annotations

import pytest
import torch

from data_prep.records import InputError
from pipeline.families import FAMILIES, family_type
from pipeline.families.contract import LatentGrid


def slow_coverage(grid: LatentGrid, label_map: torch.Tensor, num_characters: int) -> torch.Tensor:
    """Counts, for every cell, the pixels of every source frame that it encodes."""
    b, num_frames, height, width = label_map.shape
    groups = [[0]] + [list(range(s, s + grid.frames)) for s in range(1, num_frames, grid.frames)]
    out = torch.zeros(b, num_characters, len(groups), height // grid.pixels, width // grid.pixels)
    for i, n, t, y, x in (
        (*index,) for index in torch.cartesian_prod(*map(torch.arange, out.shape)).tolist()
    ):
        rows = slice(y * grid.pixels, (y + 1) * grid.pixels)
        columns = slice(x * grid.pixels, (x + 1) * grid.pixels)
        pixels = [label_map[i, f, rows, columns] == n + 1 for f in groups[t]]
        out[i, n, t, y, x] = torch.stack(pixels).float().mean()
    return out


@pytest.mark.parametrize(("frames", "num_frames"), [(1, 5), (4, 9), (4, 1)])
def test_coverage_counts_the_pixels_of_its_own_frames(frames: int, num_frames: int) -> None:
    grid = LatentGrid(frames=frames, pixels=4, patch=(1, 1, 1))
    label_map = torch.randint(0, 4, (2, num_frames, 8, 12), dtype=torch.uint8)
    torch.testing.assert_close(grid.coverage(label_map, 3), slow_coverage(grid, label_map, 3))


def test_a_face_in_one_frame_reaches_only_the_latent_frame_that_encodes_it() -> None:
    grid = LatentGrid(frames=4, pixels=8, patch=(1, 2, 2))
    label_map = torch.zeros(1, 9, 16, 16, dtype=torch.uint8)
    label_map[:, 4, :8, :8] = 1  # the last frame of the group 1..4
    cells = grid.coverage(label_map, 1)
    assert cells[0, 0, :, 0, 0].tolist() == [0.0, 0.25, 0.0]
    assert grid.tokens(cells)[0, 0].tolist() == [0.0, 0.25 / 4, 0.0]  # a token is 2 x 2 cells


@pytest.mark.parametrize(
    ("size", "field"), [((6, 16, 16), "num_frames"), ((9, 24, 16), "height_px"), ((9, 16, 8), "width_px")]
)
def test_a_size_that_does_not_fit_is_named(size: tuple[int, int, int], field: str) -> None:
    grid = LatentGrid(frames=4, pixels=8, patch=(1, 2, 2))
    assert grid.size(9, 16, 32) == (3, 2, 4)
    with pytest.raises(InputError, match=field):
        grid.size(*size)


def test_families_are_found_by_name() -> None:
    assert family_type("tiny") is FAMILIES["tiny"]
    with pytest.raises(InputError, match=r"family\.name: 'tyni'.*tiny"):
        family_type("tyni")
