"""The stream of samples: same position, same sample, whoever asks; filters; own faces; what a batch holds."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from data_prep.records import F32, U8, InputError
from pipeline.config import DataConfig
from pipeline.data.features import Recogniser
from pipeline.data.order import Share, epoch_order
from pipeline.data.samples import Samples, chosen_rows
from pipeline.data.stream import Stream, collate
from tests.small_shards import CASTS, COLOURS, HEIGHT, NUM_FRAMES, WIDTH, face, make_sample, make_shards
from tests.waiting import until

DIM = 48


def embed(crops: U8) -> tuple[F32, F32]:
    small = crops.reshape(len(crops), 4, 28, 4, 28, 3).mean((2, 4)).reshape(len(crops), DIM)
    norms = np.linalg.norm(small, axis=1)
    return np.asarray(small / norms[:, None], np.float32), np.asarray(norms, np.float32)


RECOGNISER = Recogniser("means", embed, "a" * 64, DIM, min_norm=1.0)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("data") / "shards")


def configured(shards: Path, **changes: object) -> DataConfig:
    values = {"num_frames": 3, "frame_stride": 2, "num_workers": 0, "min_own_face_px": 8, **changes}
    return DataConfig(shards=str(shards), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("world", "parts"), [(1, 1), (2, 1), (4, 1), (1, 2), (2, 2)])
def test_a_step_trains_on_the_same_samples_whatever_the_ranks(world: int, parts: int) -> None:
    for step in range(3):
        taken: list[int] = []
        for rank in range(world):
            share = Share(8, rank, world, parts)
            passes = list(share.positions(step, step + 1))
            assert [len(some) for some in passes] == [8 // world // parts] * parts
            taken += [position for some in passes for position in some]
        assert sorted(taken) == list(range(8 * step, 8 * step + 8))


def test_a_batch_size_that_does_not_divide_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"batch_size=6 .* 2 ranks x engine.accumulation=2.*give 4 or a multiple"
    ):
        Share(6, 0, 2, 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_whole_job_does_not_end_the_loading_processes(number: int, shards: Path) -> None:
    """Slurm and kubelets signal every process; the rank has a checkpoint to write first."""
    before = multiprocessing.active_children()
    samples = Samples(configured(shards), seed=0, recogniser=RECOGNISER)
    stream = Stream(samples, Share(2, 0, 1, 1), range(6), configured(shards, num_workers=1, prefetch=2))
    first, _ = stream.next()
    (worker,) = [process for process in multiprocessing.active_children() if process not in before]
    os.kill(worker.pid or 0, number)
    rest = [stream.next()[0] for _ in range(5)]
    assert torch.cat([batch.positions for batch in (first, *rest)]).tolist() == list(range(12))


def load_on(shards: Path, pipe: Connection) -> None:
    """A rank that never takes what its loading processes have loaded, more than a pipe holds."""
    config = configured(shards, num_workers=2, prefetch=400)
    stream = Stream(Samples(config, 0, RECOGNISER), Share(2, 0, 1, 1), range(2000), config)
    stream.next()
    pipe.send([process.pid for process in multiprocessing.active_children()])
    signal.pause()


def test_loading_processes_end_when_their_rank_is_killed(shards: Path) -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    rank = context.Process(target=load_on, args=(shards, theirs))
    rank.start()
    workers = [psutil.Process(pid) for pid in ours.recv()]
    until(lambda: all(worker.status() == psutil.STATUS_SLEEPING for worker in workers))
    rank.kill()
    rank.join()
    assert len(workers) == 2
    until(lambda: not any(worker.is_running() for worker in workers))


def test_epochs_are_permutations_that_differ() -> None:
    keys = tuple(f"k{k}" for k in range(50))
    orders = [epoch_order(keys, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len(set(orders)) == 4
    assert orders[0] == epoch_order(keys, 0, 0)


def test_every_epoch_shows_every_sample_once(shards: Path) -> None:
    samples = Samples(configured(shards), 3, RECOGNISER)
    order = samples.order(batch_size=4)
    seen = [samples.at(order, position).key for position in range(24)]
    assert set(Counter(seen[:12]).values()) == set(Counter(seen[12:]).values()) == {1}
    assert seen[:12] != seen[12:]


def test_workers_and_restarts_change_nothing(shards: Path) -> None:
    samples = Samples(configured(shards), 0, RECOGNISER)
    share = Share(4, 0, 2, 1)

    def keys(first: int, num_workers: int) -> list[tuple[str, ...]]:
        stream = Stream(samples, share, range(first, 5), configured(shards, num_workers=num_workers))
        return [stream.next()[0].keys for _ in range(first, 5)]

    whole = keys(0, 0)
    assert keys(0, 1) == whole
    assert keys(2, 0) == whole[2:]


@pytest.mark.parametrize(
    ("include", "exclude", "left"),
    [((), (), 12), (("c03",), (), 6), ((), ("c03",), 6), (("c02",), ("c03",), 4), (("c01", "c03"), (), 12)],
)
def test_characters_choose_samples(
    include: tuple[str, ...], exclude: tuple[str, ...], left: int, shards: Path
) -> None:
    config = configured(shards, include_characters=include, exclude_characters=exclude)
    samples = Samples(config, 0, RECOGNISER)
    assert len(samples) == left
    for row in chosen_rows(samples.shards, config):
        cast = set(CASTS[row % 6])
        assert not cast & set(exclude)
        assert not include or cast & set(include)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"include_characters": ("c1",)},
            r"data.include_characters: c1 not in the shards; they show c01, c02, c03",
        ),
        ({"exclude_characters": ("c01", "c02", "c03")}, "none of 12 samples is left"),
        ({"num_frames": 17}, r"needs 33 frames; sample sample-\d+ has 9"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(changes: dict[str, object], message: str, shards: Path) -> None:
    with pytest.raises(InputError, match=message):
        Samples(configured(shards, **changes), 0, RECOGNISER)


def test_missing_and_unfinished_shards_are_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        Samples(configured(tmp_path / "none"), 0, RECOGNISER)
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "shard-000000.tar").write_bytes((shards / "shard-000000.tar").read_bytes())
    with pytest.raises(InputError, match="unfinished"):
        Samples(configured(unfinished), 0, RECOGNISER)


def test_a_batch_holds_what_the_samples_hold(shards: Path) -> None:
    samples = Samples(configured(shards), 0, RECOGNISER)
    batch = collate([samples.load(k, 10 + k) for k in (2, 5)])  # casts of one and of three
    assert batch.video.shape == (2, 3, 3, HEIGHT, WIDTH)
    assert batch.video.min() >= -1
    assert batch.video.max() <= 1
    assert batch.positions.tolist() == [12, 15]
    assert batch.cast == (("c03",), ("c01", "c02", "c03"))
    assert batch.cast_mask.tolist() == [[True, False, False], [True, True, True]]
    assert batch.reference_mask.sum((1, 2)).tolist() == [3, 9]
    frames = slice(2, 7, 2)  # the middle 5 of 9, every second
    for row, number in enumerate((2, 5)):
        sample = make_sample(number)
        assert torch.equal(batch.label_map[row], torch.from_numpy(sample.label_map[frames]))
    expected = embed(np.stack([face("c03", r) for r in range(3)]))[0]
    np.testing.assert_allclose(batch.references[0, 0], expected)
    inside = batch.label_map[0] == 1
    colour = batch.video[0].permute(1, 2, 3, 0)[inside].median(0).values * 127.5 + 127.5
    np.testing.assert_allclose(colour, COLOURS["c03"], atol=12)  # the codec's error


def test_the_same_batch_padded_further_keeps_its_values(shards: Path) -> None:
    samples = Samples(configured(shards), 0, RECOGNISER)
    alone, beside = collate([samples.load(2, 0)]), collate([samples.load(2, 0), samples.load(5, 1)])
    assert torch.equal(alone.references[0, 0], beside.references[0, 0])
    assert not beside.references[0, 1:].any()
    assert not beside.reference_mask[0, 1:].any()


def test_damaged_bytes_are_named(shards: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in shards.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    samples = Samples(configured(copy), 0, RECOGNISER)
    row = samples.shards.rows[3]
    data = bytearray((copy / row.shard).read_bytes())
    data[row.offset + row.length // 2] ^= 1
    (copy / row.shard).write_bytes(data)
    with pytest.raises(InputError, match=f"sample {row.key}.*damaged"):
        samples.load(3, 0)
    for num_workers in (0, 1):  # from a loading process the same one line
        stream = Stream(samples, Share(12, 0, 1, 1), range(1), configured(copy, num_workers=num_workers))
        with pytest.raises(InputError, match=f"^sample {row.key}.*damaged") as caught:
            stream.next()
        assert "\n" not in str(caught.value)


def test_features_are_kept_beside_the_shards_not_in_them(shards: Path) -> None:
    Samples(configured(shards), 0, RECOGNISER).load(0, 0)
    assert list(Path(f"{shards}.features").rglob("faces-*/*.safetensors"))
    assert {path.suffix for path in shards.iterdir()} == {".tar", ".json", ".jsonl"}
    elsewhere = shards.parent / "elsewhere"
    Samples(replace(configured(shards), features=str(elsewhere)), 0, RECOGNISER).load(0, 0)
    assert list(elsewhere.rglob("faces-*/*.safetensors"))
    assert NUM_FRAMES == 9
