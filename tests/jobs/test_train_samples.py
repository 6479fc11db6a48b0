"""Training reads the cache where it is whole, says what it lacks, never what another model made; bucket tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data_prep.records import InputError
from jobs.train import make_initial
from jobs.train_samples import bucket_table, open_samples
from pipeline import model as models
from pipeline.config import TrainConfig
from pipeline.data.packs import DamagedError
from pipeline.data.samples import Samples
from pipeline.data.stream import collate
from pipeline.families.contract import LatentGrid
from tests.small_cache import FAMILIES, RECOGNISER, cached, configured
from tests.small_shards import make_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("samples") / "shards")


@pytest.fixture
def begun(shards: Path, tmp_path: Path) -> TrainConfig:
    """A run whose initial model is there and whose cache is not."""
    config = replace(configured(shards, tmp_path / "features", FAMILIES["tiny"]), run=str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    make_initial(config, Samples(config.data, config.seed, RECOGNISER), lambda phase, step: None)
    return config


def fill(config: TrainConfig, folder: Path) -> None:
    cached(config, models.load(Path(config.run) / "initial"), folder)


def required(config: TrainConfig, how: str = "require") -> TrainConfig:
    return replace(config, data=replace(config.data, cache=how))  # type: ignore[arg-type]


def test_without_a_cache_nothing_is_said_unless_it_is_required(begun: TrainConfig) -> None:
    samples, grid = open_samples(begun, RECOGNISER, pytest.fail)
    assert samples.load(0, 0).video is not None and grid.pixels == 8
    command = f"castbank cache --config {begun.run}/config.yaml"
    with pytest.raises(
        InputError, match="require: 12 of 12 latents and 13 of 13 texts are not cached"
    ) as caught:
        open_samples(required(begun), RECOGNISER, pytest.fail)
    assert str(caught.value).endswith(f"run: {command}")


def test_a_whole_cache_is_read_a_part_is_said_and_off_is_off(begun: TrainConfig, tmp_path: Path) -> None:
    fill(begun, tmp_path / "parts")
    for how in ("auto", "require"):
        samples, _ = open_samples(required(begun, how), RECOGNISER, pytest.fail)
        assert samples.load(0, 0).cached is not None
    off, _ = open_samples(required(begun, "off"), RECOGNISER, pytest.fail)
    assert off.load(0, 0).cached is None
    (more,) = (replace(begun, data=replace(begun.data, windows_per_sample=2)),)
    told: list[str] = []
    part, _ = open_samples(more, RECOGNISER, told.append)
    assert part.load(0, 0).cached is None
    assert "latents and 0 of 13 texts are not cached" in told[0] and "castbank cache --config" in told[0]


def test_what_another_model_made_is_named(begun: TrainConfig, tmp_path: Path) -> None:
    fill(begun, tmp_path / "parts")
    family = replace(begun.model.family, tiny=replace(begun.model.family.tiny, text_tokens=9))
    other = replace(required(begun), model=replace(begun.model, family=family))
    with pytest.raises(
        InputError, match=r"12 of 12 latents.*what is there is of: dtype fp32, family tiny, fingerprint"
    ):
        open_samples(other, RECOGNISER, pytest.fail)


def test_damage_is_named_with_the_remedy(begun: TrainConfig, tmp_path: Path) -> None:
    fill(begun, tmp_path / "parts")
    (path,) = (tmp_path / "features").glob("text-*/*.safetensors")
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    samples, _ = open_samples(required(begun), RECOGNISER, pytest.fail)
    with pytest.raises(
        DamagedError, match=r"is damaged .its checksum differs.; run castbank cache with --check"
    ):
        for index in range(12):
            collate([samples.load(index, 0)])


def test_the_table_says_what_each_bucket_costs(shards: Path, tmp_path: Path) -> None:
    changes = {"buckets": ("3x32x48", "1x32x48"), "equal_tokens": True, "frame_stride": 1}
    config = configured(shards, tmp_path, FAMILIES["tiny"], **changes)
    samples = Samples(config.data, 0, RECOGNISER)
    (head, row, total) = bucket_table(samples, LatentGrid(frames=1, pixels=8, patch=(2, 1, 1)), 4)
    assert row.split() == ["3x32x48", "12", "48", "4", "25.0%", "66.7%"]  # 3 frames fill 4; 3 of 9 are taken
    assert total.split() == ["all", "12", "25.0%"] and head.split()[:2] == ["bucket", "samples"]
    grid = LatentGrid(frames=1, pixels=8, patch=(1, 1, 1))
    mixed = replace(config.data, buckets=("1x32x48", "9x16x24"), equal_tokens=True)
    both = Samples(mixed, 0, RECOGNISER)
    assert [len(both.order(4, grid).span(0)), str(*both.buckets)] == [4, "9x16x24"]


def test_the_tiny_fingerprint_is_the_codecs(begun: TrainConfig) -> None:
    model = models.load(Path(begun.run) / "initial")
    before = model.family.fingerprint()
    assert type(model.family).frozen(begun.model.family, Path(begun.run) / "initial").fingerprint() == before
    with torch.no_grad():
        model.family.codec.basis[0, 0] += 1e-4  # type: ignore[attr-defined]
    assert model.family.fingerprint() != before
