"""How fast the cache feeds a training: against reading the shards' bytes alone, and as a share of a step's time.

Run by ``make bench`` on an idle machine; figures are printed. Both sides of each comparison are taken in one run.
"""

from __future__ import annotations

import io
import statistics
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep.shards import Sample, write_index, write_shard
from jobs.__main__ import main
from pipeline.config import FamilyConfig, TrainConfig
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

NUM_SAMPLES, BATCH, EPOCHS, REPEATS = 48, 4, 4, 9
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
    """Entries of the size that Wan's would have, in packs as castbank cache makes them."""
    generator = torch.Generator().manual_seed(0)
    text = torch.zeros(512, TEXT[1])
    text[: TEXT[0]] = torch.randn(TEXT, generator=generator).bfloat16().float()
    cache.keep_text([(EMPTY, "", text[:1].clone())])
    cache.keep_text([(sha256, "a caption", text) for sha256 in samples.texts()])
    grid = LatentGrid(frames=4, pixels=8, patch=(1, 2, 2))
    cuts = list(samples.cuts().items())
    for at in range(0, len(cuts), 16):
        some = cuts[at : at + 16]
        encoded = Encoded(torch.randn(len(some), *LATENTS, generator=generator))
        casts = [len(samples.sample_row(index).cast) for _, (index, _) in some]
        masks = [torch.zeros(num_slots, *LATENTS[1:]) for num_slots in casts]
        for mask in masks:
            mask[:, :, 20:40, 30:60] = 0.25
        cache.keep_latents([name for name, _ in some], encoded, masks, grid)
        samples.store.packs.write(
            {name: faces_entry(num_slots) for (name, _), num_slots in zip(some, casts, strict=True)}
        )


def faces_entry(num_slots: int) -> dict[str, torch.Tensor]:
    return {
        "references": torch.ones(num_slots, 3, DIM),
        "reference_mask": torch.ones(num_slots, 3, dtype=torch.bool),
        "own": torch.ones(num_slots, DIM),
        "own_mask": torch.ones(num_slots, dtype=torch.bool),
    }


def same_bytes(cache: FrozenCache, samples: Samples, path: Path) -> Path:
    """A tar of what the packs hold of each sample: latents, masks, text, caption and faces, a member each."""
    with tarfile.open(path, "w") as tar:
        for number, (name, (index, _)) in enumerate(samples.cuts().items()):
            text = cache.text.read(samples.sample_row(index).sha256)
            for field, value in {
                **cache.latents.read(name),
                **text,
                **samples.store.packs.read(name),
            }.items():
                data = value.reshape(-1).view(torch.uint8).numpy().tobytes()
                info = tarfile.TarInfo(f"{number:06d}.{field}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def raw_rate(path: Path, num_workers: int) -> float:
    """Samples per second of webdataset reading a tar ``EPOCHS`` times, nothing decoded."""
    import webdataset

    start_s = time.perf_counter()
    dataset = webdataset.WebDataset([str(path)] * EPOCHS, shardshuffle=False)
    if num_workers:
        dataset = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=num_workers)
    count = sum(1 for _ in dataset)
    assert count == EPOCHS * NUM_SAMPLES
    return count / (time.perf_counter() - start_s)


def cached_rate(samples: Samples, num_workers: int, epochs: int = EPOCHS) -> float:
    """Samples per second of our stream, from its start, whole batches."""
    config = replace(samples.config, num_workers=num_workers)
    start_s = time.perf_counter()
    steps = epochs * NUM_SAMPLES // BATCH
    stream = Stream(samples, Share(BATCH, 0, 1, 1), range(steps), config)
    for _ in range(steps):
        stream.next()
    return epochs * NUM_SAMPLES / (time.perf_counter() - start_s)


def opened(config: TrainConfig) -> tuple[Samples, FrozenCache]:
    """As a rank opens them: no entry has been read yet, so that the first reading compares checksums."""
    samples, cache = Samples(config.data, 0, RECOGNISER), FrozenCache(config.data, "wan", "a" * 64)
    samples.read_from(cache)
    return samples, cache


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_the_loader_keeps_up_with_reading_the_shards(dtype: str, tmp_path: Path) -> None:
    shards = large_shards(tmp_path / "shards")
    config = configured(shards, tmp_path / "features", FamilyConfig(), latents_dtype=dtype)
    samples, cache = opened(config)
    fill(cache, samples)
    same, tar = same_bytes(cache, samples, tmp_path / "same.tar"), shards / "shard-000000.tar"
    sizes = [path.stat().st_size / NUM_SAMPLES / 1e6 for path in (same, tar)]
    print(f"\n{dtype}: MB a sample: {sizes[0]:.2f} in the cache, {sizes[1]:.2f} in the shards")
    for num_workers in (0, 2):
        rates = [
            (
                raw_rate(same, num_workers),
                raw_rate(tar, num_workers),
                cached_rate(opened(config)[0], num_workers, 1 if num_workers == 0 else EPOCHS),
                cached_rate(samples, num_workers),
            )
            for _ in range(REPEATS)
        ]
        raw_same, raw_tar, first, later = (statistics.median(each) for each in zip(*rates, strict=True))
        print(
            f"{num_workers} workers, samples/s: webdataset on the same bytes {raw_same:.0f}, on the shards "
            f"{raw_tar:.0f}; ours at first reading {first:.0f}, later {later:.0f}; against the same bytes "
            f"{first / raw_same:.2f} and {later / raw_same:.2f}, against the shards {first / raw_tar:.2f} and "
            f"{later / raw_tar:.2f}"
        )
        assert min(first, later) / raw_same >= 0.9


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
