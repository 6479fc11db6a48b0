"""Samples of several sizes in one run, videos and pictures: each in its bucket, batches of one shape, none lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep.records import InputError
from data_prep.shards import Sample, write_index, write_shard
from data_prep.video.encode import encode_mp4
from pipeline.data.order import Share
from pipeline.data.outlines import outlines_of
from pipeline.data.samples import Samples
from pipeline.data.stream import Stream, collate
from tests.small_cache import FAMILIES, RECOGNISER, configured
from tests.small_shards import HEIGHT, WIDTH, draw, make_sample

NUM_VIDEOS, NUM_PICTURES, NUM_TALL = 7, 5, 3


def picture(number: int) -> Sample:
    """One frame, a quarter larger each way."""
    sample = make_sample(number)
    video, labels = (
        np.pad(x[:1], ((0, 0), (8, 8), (8, 8)) + ((0, 0),) * (x.ndim - 3)) for x in draw(number, cast(sample))
    )
    note = sample.note
    note = replace(
        note,
        key=f"picture-{number}",
        frames=note.frames[:1],
        frame_times_s=note.frame_times_s[:1],
        boxes_px=tuple(boxes[:1] for boxes in note.boxes_px),
        height_px=HEIGHT + 16,
        width_px=WIDTH + 16,
    )
    return replace(sample, note=note, mp4=encode_mp4(video, 8.0), label_map=labels)


def tall(number: int) -> Sample:
    """A video on its side, whose caption speaks of a side."""
    sample = make_sample(number)
    video, labels = (np.ascontiguousarray(x.swapaxes(1, 2)) for x in draw(number, cast(sample)))
    note = replace(sample.note, key=f"tall-{number}", height_px=WIDTH, width_px=HEIGHT)
    return replace(sample, note=note, mp4=encode_mp4(video, 8.0), label_map=labels, caption="on the left")


def cast(sample: Sample) -> tuple[str, ...]:
    return tuple(member.character_id for member in sample.note.cast)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed") / "shards"
    folder.mkdir()
    samples = [make_sample(k) for k in range(NUM_VIDEOS)]
    samples += [picture(k) for k in range(NUM_PICTURES)] + [tall(k) for k in range(NUM_TALL)]
    write_index(folder, write_shard(folder / "shard-000000.tar", samples), "0" * 64, {})
    return folder


def test_every_batch_is_of_one_shape_and_every_sample_is_shown(mixed: Path, tmp_path: Path) -> None:
    buckets = ("3x32x48", "3x48x32", "1x32x48")
    config = configured(mixed, tmp_path / "features", FAMILIES["tiny"], buckets=buckets)
    samples = Samples(config.data, 0, RECOGNISER)
    assert {str(b): len(some) for b, some in samples.buckets.items()} == dict(
        zip(buckets, (NUM_VIDEOS, NUM_TALL, NUM_PICTURES), strict=True)
    )
    streams = [Stream(samples, Share(2, rank, 2, 1), range(16), config.data) for rank in range(2)]
    shown: Counter[str] = Counter()
    for _ in range(16):
        one, other = (stream.next()[0] for stream in streams)
        assert one.video is not None and other.video is not None and one.video.shape == other.video.shape
        kind = {(3, 32): "sample", (3, 48): "tall", (1, 32): "picture"}[
            one.video.shape[2], one.video.shape[3]
        ]
        assert all(key.startswith(kind) for key in (*one.keys, *other.keys))
        shown.update([*one.keys, *other.keys])
    assert len(shown) == NUM_VIDEOS + NUM_PICTURES + NUM_TALL
    assert max(shown.values()) - min(shown.values()) <= 2
    assert streams[0].consumed(16) == 32


def test_resuming_shows_the_same(mixed: Path, tmp_path: Path) -> None:
    buckets = ("3x32x48", "3x48x32", "1x32x48")
    config = configured(mixed, tmp_path / "features", FAMILIES["tiny"], buckets=buckets, windows_per_sample=2)

    def seen(first: int) -> list[tuple[tuple[str, ...], torch.Tensor]]:
        samples = Samples(config.data, 0, RECOGNISER)
        stream = Stream(samples, Share(2, 0, 1, 1), range(first, 9), config.data)
        batches = [stream.next()[0] for _ in range(first, 9)]
        return [(batch.keys, batch.label_map) for batch in batches]  # type: ignore[misc]

    for (keys, labels), (keys_again, labels_again) in zip(seen(0)[5:], seen(5), strict=True):
        assert keys == keys_again and torch.equal(labels, labels_again)


def test_a_picture_keeps_its_labels_in_its_bucket(mixed: Path, tmp_path: Path) -> None:
    config = configured(mixed, tmp_path / "features", FAMILIES["tiny"], buckets=("1x48x64",))
    samples = Samples(config.data, 0, RECOGNISER)
    assert (len(samples), samples.left_out) == (
        NUM_PICTURES,
        NUM_VIDEOS + NUM_TALL,
    )  # those would be enlarged
    item = samples.load(0, 0)
    assert item.label_map is not None
    np.testing.assert_array_equal(item.label_map[0, 8:-8, 8:-8], draw(0, item.cast)[1][0])


def test_sizes_that_make_no_batch_are_named_with_the_remedy(mixed: Path, tmp_path: Path) -> None:
    config = configured(mixed, tmp_path / "features", FAMILIES["tiny"], num_frames=1)
    samples = Samples(config.data, 0, RECOGNISER)
    with pytest.raises(
        InputError, match=r"sample-000 and picture-0 differ in size: 1x32x48 and 1x48x64 .*data\.buckets"
    ):
        collate([samples.load(0, 0), samples.load(NUM_VIDEOS, 1)])


def test_outlines_are_read_once_and_are_what_the_samples_say(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(mixed, tmp_path / "features", FAMILIES["tiny"], num_frames=1)
    samples = Samples(config.data, 0, RECOGNISER)
    found = outlines_of(samples.shards, tmp_path)
    for row, outline in enumerate(found):
        note = samples.shards.read(row).note
        assert (outline.num_frames, outline.height_px) == (len(note.frames), note.height_px)
        assert outline.width_px == note.width_px and outline.mirrors is not note.key.startswith("tall")
    (kept,) = tmp_path.glob("outlines-*.npz")
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.data.outlines._outline", None)
        assert outlines_of(samples.shards, tmp_path) == found
    kept.write_bytes(kept.read_bytes()[:50])
    assert outlines_of(samples.shards, tmp_path) == found
