"""A batch from a loading process is the one that is made without, and its large tensors are shared memory."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import model as models
from pipeline.batch import Batch, Frozen
from pipeline.data import sending
from pipeline.data.order import Share
from pipeline.data.samples import Samples
from pipeline.data.stream import Stream
from tests.small_cache import FAMILIES, PICTURED, cached, configured
from tests.small_shards import make_shards


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, Batch | Frozen):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    return bool(one == other)


@pytest.mark.parametrize("small_bytes", [0, 1000, 1 << 16], ids=["shared", "both", "by value"])
def test_workers_change_nothing(small_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(
        make_shards(tmp_path / "shards"), tmp_path / "features", FAMILIES["tiny"], num_workers=0
    )
    samples = Samples(config.data, config.seed, PICTURED)
    model = models.create(config.model, samples.videos(), config.seed)
    opened = cached(config, model, tmp_path / "parts", PICTURED)
    monkeypatch.setattr(sending, "SMALL_BYTES", small_bytes)
    samples = Samples(config.data, config.seed, PICTURED)
    samples.read_from(opened.cache)

    def batches(num_workers: int) -> list[Batch]:
        asked = configured(Path(config.data.shards), tmp_path, FAMILIES["tiny"], num_workers=num_workers).data
        stream = Stream(samples, Share(4, 0, 1, 1), range(4), asked)
        return [stream.next()[0] for _ in range(4)]

    alone, loaded = batches(0), batches(2)
    assert all(same(one, other) for one, other in zip(alone, loaded, strict=True))
    frozen = loaded[0].frozen
    assert frozen is not None and frozen.latents.is_shared() is (small_bytes < 1 << 16)
    assert all(type(value) is torch.Tensor for value in (loaded[0].references, frozen.text, frozen.empty))
