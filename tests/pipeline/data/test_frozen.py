"""A batch read from the cache: what was kept, bit for bit, padded; sizes that differ are named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data_prep.records import InputError
from pipeline.config import DataConfig
from pipeline.data.cuts import Cut
from pipeline.data.frozen import EMPTY, Cached, FrozenCache, mask_entry, spread
from pipeline.families.contract import Encoded, LatentGrid

GRID = LatentGrid(frames=4, pixels=8, patch=(1, 2, 2))
SIZE = (3, 4, 6)  # latent frames, height, width
CUT = Cut(0, 9, 1, 32, 48, flip=False)
TEXTS = {"a": 3, "b": 5, "c": 0}  # rows that are no padding, of 7


def drawn(seed: int, num_slots: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A label map u8[1,9,32,48] and the coverage f32[N,3,4,6] of it."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(1, 9, 32, 48, dtype=torch.uint8)
    labels[:, 2:7, 5:20, 11:30] = torch.randint(0, num_slots + 1, (5, 15, 19), generator=generator)
    return labels, GRID.coverage(labels, num_slots)[0]


@pytest.mark.parametrize("num_slots", [0, 1, 3])
def test_masks_come_back_bit_for_bit(num_slots: int) -> None:
    _, coverage = drawn(0, num_slots)
    coverage = torch.cat([coverage, torch.zeros(1, *SIZE), torch.ones(1, *SIZE)])  # nobody, and everywhere
    entry = mask_entry(coverage, GRID)
    back = torch.zeros(num_slots + 4, *SIZE)
    spread(entry, back)
    assert torch.equal(back[: len(coverage)], coverage) and not back[len(coverage) :].any()
    inside = torch.stack([one[1:, 0:3, 1:4].flatten() for one in coverage[:num_slots]]) if num_slots else None
    assert inside is None or entry["mask"].numel() <= inside.numel() + coverage[0].numel()


@pytest.fixture
def cache(tmp_path: Path) -> FrozenCache:
    return FrozenCache(DataConfig(shards="none", features=str(tmp_path)), "tiny", "a" * 64)


def fill(cache: FrozenCache, half: bool) -> tuple[Encoded, list[torch.Tensor], torch.Tensor]:
    """Three cuts with casts of 2, 1 and 0; all texts are bf16, or one is not."""
    generator = torch.Generator().manual_seed(1)
    encoded = Encoded(*(torch.randn(3, c, *SIZE, generator=generator) for c in (4, 2)))
    masks = [drawn(k, num_slots)[1] for k, num_slots in enumerate((2, 1, 0))]
    text = torch.zeros(4, 7, 16)
    for row, used in enumerate((*TEXTS.values(), 1)):
        text[row, :used] = torch.randn(used, 16, generator=generator).bfloat16().float()
    if not half:
        text[1, 0, 0] = 1 / 3
    cache.keep_latents([f"{sha}.{CUT.name}" for sha in TEXTS], encoded, masks, GRID)
    names = [*TEXTS, EMPTY]
    cache.keep_text([(name, f"of {name}", text[row]) for row, name in enumerate(names)])
    return encoded, masks, text


@pytest.mark.parametrize("half", [True, False])
def test_a_batch_is_what_was_kept_padded(cache: FrozenCache, half: bool) -> None:
    encoded, masks, text = fill(cache, half)
    items = [Cached(cache, sha, sha, CUT) for sha in TEXTS]
    frozen, captions = cache.read(items, num_slots=3)
    assert captions == ("of a", "of b", "of c")
    assert torch.equal(frozen.latents, encoded.latents) and frozen.image is None
    assert frozen.channels is not None and torch.equal(frozen.channels, encoded.channels)
    for row, mask in enumerate(masks):
        assert torch.equal(frozen.coverage[row, : len(mask)], mask)
        assert not frozen.coverage[row, len(mask) :].any()
    assert frozen.text.shape == (3, 5, 16)
    assert frozen.text.dtype == (torch.bfloat16 if half else torch.float32)
    for dropped in (False, True):
        told = frozen.texts(torch.tensor([dropped] * 3))
        assert torch.equal(told, text[3].expand(3, -1, -1) if dropped else text[:3])


def test_sizes_that_make_no_batch_are_named_with_the_remedy(cache: FrozenCache) -> None:
    fill(cache, True)
    other = Cut(0, 1, 1, 32, 48, flip=False)
    cache.keep_latents(
        [f"b.{other.name}"], Encoded(torch.zeros(1, 4, 1, 4, 6)), [torch.zeros(1, 1, 4, 6)], GRID
    )
    items = [Cached(cache, "first", "a", CUT), Cached(cache, "second", "b", other)]
    with pytest.raises(InputError, match=r"samples first and second differ in size: 9x32x48.*data\.buckets"):
        cache.read(items, num_slots=2)
