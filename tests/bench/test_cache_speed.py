"""How fast the cache feeds a training: against reading the shards' bytes alone, and as a share of a step's time.

Run by ``make bench`` on an idle machine; figures are printed. Both sides of each comparison are taken in one run.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep.shards import Sample, write_index, write_shard
from jobs.__main__ import main
from pipeline.config import FamilyConfig
from pipeline.data.features import FaceFeatures
from pipeline.data.frozen import EMPTY, FrozenCache
from pipeline.data.order import Share
from pipeline.data.samples import Samples
from pipeline.data.stream import Stream
from pipeline.families.contract import Encoded, LatentGrid
from pipeline.training.run_folder import read_metrics
from tests.small_cache import DIM, RECOGNISER, configured
from tests.small_shards import make_sample, make_shards
from tests.small_training import SMALL

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

NUM_SAMPLES, BATCH, REPEATS = 48, 4, 5
MP4_BYTES = 2_500_000  # 5 s of 480p at 4 Mbit/s
LATENTS = (16, 21, 60, 104)  # what Wan 2.1 makes of 81 frames of 480 x 832
TEXT = (90, 4096)  # rows of UMT5-XXL that are no padding, of a caption of that length


def large_shards(folder: Path) -> Path:
    """Shards whose samples weigh as much as real ones; what should be a video is noise, and is not decoded here."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    samples: list[Sample] = [
        replace(make_sample(k), mp4=generator.bytes(MP4_BYTES)) for k in range(NUM_SAMPLES)
    ]
    rows = write_shard(folder / "shard-000000.tar", samples)
    write_index(folder, rows, "0" * 64, {"num_clips": NUM_SAMPLES})
    return folder


def fill(cache: FrozenCache, samples: Samples) -> None:
    """Entries of the size that Wan's would have."""
    generator = torch.Generator().manual_seed(0)
    text = torch.zeros(512, TEXT[1])
    text[: TEXT[0]] = torch.randn(TEXT, generator=generator).bfloat16().float()
    cache.keep_text([(EMPTY, "", text[:1].clone())])
    grid = LatentGrid(frames=4, pixels=8, patch=(1, 2, 2))
    for name, (index, _) in samples.cuts().items():
        latents = torch.randn(1, *LATENTS, generator=generator)
        num_slots = len(samples.sample_row(index).cast)
        mask = torch.zeros(num_slots, *LATENTS[1:])
        mask[:, :, 20:40, 30:60] = 0.25
        cache.keep_latents([name], Encoded(latents), [mask], grid)
        cache.keep_text([(samples.sample_row(index).sha256, "a caption", text)])
        faces = FaceFeatures(
            np.ones((num_slots, 3, DIM), np.float32),
            np.ones((num_slots, 3), np.bool_),
            np.ones((num_slots, DIM), np.float32),
            np.ones(num_slots, np.bool_),
        )
        path = samples.store.folder / name[:2] / f"{name}.npz"
        path.parent.mkdir(exist_ok=True)
        np.savez(path, **vars(faces))


def raw_rate(shards: Path) -> float:
    """Samples per second of webdataset reading the tar, nothing decoded."""
    import webdataset

    start_s = time.perf_counter()
    count = sum(1 for _ in webdataset.WebDataset([str(shards / "shard-000000.tar")], shardshuffle=False))
    assert count == NUM_SAMPLES
    return count / (time.perf_counter() - start_s)


def cached_rate(samples: Samples) -> float:
    """Samples per second of our stream, in this process, as the tar is read in it too; whole batches."""
    steps = NUM_SAMPLES // BATCH
    stream = Stream(samples, Share(BATCH, 0, 1, 1), range(steps), samples.config)
    start_s = time.perf_counter()
    for _ in range(steps):
        stream.next()
    return NUM_SAMPLES / (time.perf_counter() - start_s)


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_the_loader_keeps_up_with_reading_the_shards(dtype: str, tmp_path: Path) -> None:
    shards = large_shards(tmp_path / "shards")
    config = configured(shards, tmp_path / "features", FamilyConfig(), latents_dtype=dtype)
    samples = Samples(config.data, 0, RECOGNISER)
    samples.know_outlines()
    cache = FrozenCache(config.data, "wan", "a" * 64)
    fill(cache, samples)
    samples.read_from(cache)
    rates = [(raw_rate(shards), cached_rate(samples)) for _ in range(REPEATS)]
    raw, ours = (statistics.median(each) for each in zip(*rates, strict=True))
    print(f"\n{dtype}: raw tar {raw:.0f} samples/s, from the cache {ours:.0f}, ratio {ours / raw:.2f}")
    if dtype == "bf16":
        assert ours / raw >= 0.9


def test_waiting_for_data_is_at_most_a_hundredth_of_a_step(face_home: Path, tmp_path: Path) -> None:
    shards = make_shards(tmp_path / "shards", 24)
    (tmp_path / "small.yaml").write_text(SMALL)
    arguments = ["--config", str(tmp_path / "small.yaml"), f"data.shards={shards}", "engine.num_processes=1"]
    more = ["num_steps=80", "tracking.kind=none", "model.family.tiny.num_layers=6", "batch_size=8"]
    assert main(["cache", *arguments, *more]) == 0
    assert main(["train", *arguments, *more, "data.cache=require", f"run={tmp_path / 'run'}"]) == 0
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")[10:]  # the first wait for the workers' start
    spent = sum(line["step_time_s"] for line in lines)
    waited = sum(line["step_time_s"] * line["data_wait_share"] for line in lines)
    print(f"\nwaiting {waited / spent:.2%} of {1000 * spent / len(lines):.0f} ms a step")
    assert waited / spent <= 0.01
