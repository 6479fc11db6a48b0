"""Training from the cache is training without it: the same losses, through the real objective, for each family."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.cache_work import Asked, Opened
from jobs.train_samples import is_complete
from pipeline import model as models
from pipeline.batch import Batch
from pipeline.config import TrainConfig
from pipeline.data.order import Share
from pipeline.data.samples import Samples
from pipeline.data.stream import Stream
from pipeline.model import Model
from pipeline.objective import objective
from tests.small_cache import FAMILIES, PICTURED, RECOGNISER, cached, configured
from tests.small_shards import make_shards

STEPS = 6


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("work") / "shards")


def batches(config: TrainConfig, samples: Samples, model: Model) -> list[Batch]:
    share = Share(config.batch_size, 0, 1, 1)
    stream = Stream(samples, share, range(STEPS), config.data, model.family.grid)
    return [stream.next()[0] for _ in range(STEPS)]


def losses(config: TrainConfig, model: Model, some: list[Batch]) -> list[dict[str, Any]]:
    """Scalars, and pairs as lists."""
    made = objective.build(config.model, model, config.seed)
    return [{name: value.tolist() for name, value in made(batch).items()} for batch in some]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "changes",
    [{}, {"windows_per_sample": 2, "flip": 0.5}, {"buckets": ("3x32x48", "1x16x16"), "equal_tokens": True}],
    ids=["middle", "windows", "buckets"],
)
def test_losses_from_the_cache_equal_those_without(
    name: str, changes: dict[str, object], shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(shards, tmp_path / "features", FAMILIES[name], **changes)
    without = Samples(config.data, config.seed, RECOGNISER)
    model = models.create(config.model, without.videos(), config.seed)
    with torch.no_grad():
        for attention in model.identity.attentions:
            attention.to_out.weight.normal_(0, 0.2)
    plain = batches(config, without, model)
    expected = losses(config, model, plain)

    opened = cached(config, model, tmp_path / "parts")
    samples = Samples(config.data, config.seed, RECOGNISER)
    assert is_complete(config, samples, opened.cache, pytest.fail)
    samples.read_from(opened.cache)
    monkeypatch.setattr(type(model.family), "encode", never)
    monkeypatch.setattr(type(model.family), "embed_text", never)
    monkeypatch.setattr(Samples, "read", never)  # no shard is read
    kept = batches(config, samples, model)
    for one, other in zip(plain, kept, strict=True):
        assert (one.keys, one.cast, one.captions) == (other.keys, other.cast, other.captions)
        assert other.video is None and other.label_map is None
        assert torch.equal(one.positions, other.positions) and torch.equal(one.own_faces, other.own_faces)
    assert losses(config, model, kept) == expected


def test_pictures_of_the_cast_come_from_the_cache_too(shards: Path, tmp_path: Path) -> None:
    plain = configured(shards, tmp_path / "features", FAMILIES["tiny"])
    model_config = replace(plain.model, identity=replace(plain.model.identity, low_frequency=True))
    config = replace(plain, model=model_config)
    without = Samples(config.data, config.seed, PICTURED)
    model = models.create(config.model, without.videos(), config.seed)
    assert model.identity.low_frequency is not None
    with torch.no_grad():
        model.identity.low_frequency.embed.weight.normal_(0, 0.2)
    computed = batches(config, without, model)
    opened = cached(config, model, tmp_path / "parts", PICTURED)
    samples = Samples(config.data, config.seed, PICTURED)
    assert is_complete(config, samples, opened.cache, pytest.fail)
    samples.read_from(opened.cache)
    kept = batches(config, samples, model)
    for one, other in zip(computed, kept, strict=True):
        assert one.pictures is not None and one.landmarks is not None and other.video is None
        assert one.pictures.dtype == torch.uint8 and one.pictures.shape[2:] == (2, 112, 112, 3)
        assert torch.equal(one.pictures, other.pictures) and torch.equal(one.landmarks, other.landmarks)
        assert not one.pictures[~one.cast_mask].any()
    assert losses(config, model, kept) == losses(config, model, computed)
    item = Samples(plain.data, plain.seed, RECOGNISER).load(0, 0)
    assert item.faces.pictures is None  # not there unless the path is on


def never(*_: object) -> None:
    raise AssertionError("computed although it is cached")


def test_half_precision_halves_latents_and_moves_losses_little(shards: Path, tmp_path: Path) -> None:
    found = {}
    sizes = {}
    for dtype in ("fp32", "bf16"):
        config = configured(shards, tmp_path / "features", FAMILIES["tiny"], latents_dtype=dtype)
        samples = Samples(config.data, config.seed, RECOGNISER)
        model = models.create(config.model, samples.videos(), config.seed)
        opened = cached(config, model, tmp_path / "parts")
        samples.read_from(opened.cache)
        found[dtype] = losses(config, model, batches(config, samples, model))
        latents = opened.cache.latents.read(samples.cut_name(0, samples.cut(0, 0)))["latents"]
        sizes[dtype] = latents.numel() * latents.element_size()
    assert sizes["fp32"] == 2 * sizes["bf16"]
    for one, other in zip(found["fp32"], found["bf16"], strict=True):
        assert one["loss"] != other["loss"]
        assert one["loss"] == pytest.approx(other["loss"], rel=5e-3)


@pytest.mark.parametrize("change", ["codec", "text", "frames", "window", "precision", "sample"], ids=str)
def test_nothing_stale_is_read(change: str, shards: Path, tmp_path: Path) -> None:
    config = configured(shards, tmp_path / "features", FAMILIES["tiny"])
    samples = Samples(config.data, config.seed, RECOGNISER)
    model = models.create(config.model, samples.videos(), config.seed)
    cached(config, model, tmp_path / "parts")
    tiny, data, parts = config.model.family.tiny, config.data, tmp_path / "parts"
    if change == "codec":
        model.family.codec.mean += 1e-3  # type: ignore[attr-defined]
        model.family.save_frozen(parts)
    if change == "text":
        family = replace(config.model.family, tiny=replace(tiny, text_tokens=9))
        config = replace(config, model=replace(config.model, family=family))
    if change == "frames":
        config = replace(config, data=replace(data, num_frames=2))
    if change == "window":
        config = replace(config, data=replace(data, windows_per_sample=3))
    if change == "precision":
        config = replace(config, data=replace(data, latents_dtype="bf16"))
    if change == "sample":
        other = make_shards(tmp_path / "others", 13)  # the 12 and one more
        config = replace(config, data=replace(data, shards=str(other)))
    opened = Opened(Asked(config, RECOGNISER, parts, batch=3))
    texts, latents = opened.samples.missing(opened.cache)
    all_latents = len(opened.samples.cuts())
    assert texts == {"codec": 13, "text": 13, "sample": 1}.get(change, 0)
    assert latents == {"sample": 1, "window": latents}.get(change, all_latents) and latents > 0
