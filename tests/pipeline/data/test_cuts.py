"""Windows, mirroring and sizes: drawn alike whoever asks, video and labels together, into the best bucket."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from data_prep.records import InputError
from pipeline.config import DataConfig
from pipeline.data.cuts import Bucket, Cut, Outline, best_bucket, cut_of, kept, stays_true_mirrored

OUTLINE = Outline(num_frames=33, height_px=48, width_px=64, mirrors=True)


def config(**changes: object) -> DataConfig:
    return DataConfig(**{"shards": "x", "num_frames": 5, "frame_stride": 4, **changes})  # type: ignore[arg-type]


def test_one_window_is_the_middle_at_the_samples_own_size() -> None:
    cut = cut_of(config(), 0, "a", OUTLINE, 0)
    assert cut == Cut(8, 5, 4, 48, 64, flip=False)
    assert list(range(33))[cut.frames] == [8, 12, 16, 20, 24]
    assert cut.name == "5x48x64-from8by4"


def test_windows_are_drawn_by_seed_key_and_variant_over_all_starts() -> None:
    wanted = config(windows_per_sample=4, flip=0.5)
    cuts = [cut_of(wanted, 0, f"k{k}", OUTLINE, v) for k in range(400) for v in range(4)]
    starts = Counter(cut.start for cut in cuts)
    assert set(starts) == set(range(17)) and min(starts.values()) > 50  # 94 on average
    assert 0.45 < sum(cut.flip for cut in cuts) / len(cuts) < 0.55
    assert cut_of(wanted, 0, "k7", OUTLINE, 2) == cuts[7 * 4 + 2]
    assert len({cut_of(wanted, seed, "k7", OUTLINE, 2).start for seed in range(20)}) > 5


@pytest.mark.parametrize(
    ("caption", "true"),
    [
        ("Anna on the LEFT.", False),
        ("turns right", False),
        ("the leftmost chair", False),
        ("a bright, upright man", True),
    ],
)
def test_a_caption_that_speaks_of_sides_is_never_mirrored(caption: str, true: bool) -> None:
    assert stays_true_mirrored(caption) is true
    outline = Outline(33, 48, 64, mirrors=true)
    assert any(cut_of(config(flip=1.0), 0, f"k{k}", outline, 0).flip for k in range(9)) is true


def test_video_and_labels_are_cut_mirrored_and_resized_together() -> None:
    video = np.zeros((9, 40, 80, 3), np.uint8)
    video[:, 10:30, 44:60] = 200
    labels = (video[..., 0] > 0).astype(np.uint8)
    plain, flipped = (Cut(2, 3, 2, 20, 20, flip=flip) for flip in (False, True))
    for cut in (plain, flipped):
        taken, marked = cut.taken(video, labels=False), cut.taken(labels, labels=True)
        assert taken.shape == (3, 20, 20, 3) and marked.shape == (3, 20, 20)
        assert set(np.unique(marked)) == {0, 1}
        assert ((taken[..., 0] > 100) == (marked > 0)).mean() > 0.97  # but for the edge
    np.testing.assert_array_equal(plain.taken(labels, True)[:, :, ::-1], flipped.taken(labels, True))
    # the middle 40 of 80 columns, halved: 44..60 becomes 12..20
    np.testing.assert_array_equal(plain.taken(labels, True)[0, 10], [0] * 12 + [1] * 8)


def test_the_own_size_is_taken_pixel_for_pixel() -> None:
    video = np.random.default_rng(0).integers(0, 255, (33, 48, 64, 3)).astype(np.uint8)
    cut = cut_of(config(), 0, "a", OUTLINE, 0)
    np.testing.assert_array_equal(cut.taken(video, labels=False), video[8:25:4])


@pytest.mark.parametrize(
    ("outline", "best"),
    [
        (Outline(41, 480, 832, True), "41x480x832"),
        (
            Outline(81, 1080, 1920, True),
            "41x480x832",
        ),  # half its frames at either size: more pixels in a longer one
        (Outline(41, 832, 480, True), "41x832x480"),
        (Outline(1, 720, 1280, True), "1x720x1280"),
        (Outline(20, 720, 1280, True), "1x720x1280"),  # too short for the others
        (Outline(41, 500, 500, True), "1x480x480"),  # would be enlarged by 1.66 for the others
        (Outline(81, 240, 426, True), None),
    ],
)
def test_the_best_bucket_keeps_most_and_enlarges_nothing(outline: Outline, best: str | None) -> None:
    buckets = ("41x480x832", "41x832x480", "1x720x1280", "1x480x480")
    found = best_bucket(config(frame_stride=1, buckets=buckets), outline)
    assert (None if found is None else str(found)) == best


def test_a_bucket_that_enlarges_is_taken_where_that_is_allowed() -> None:
    small = Outline(41, 240, 416, True)
    assert best_bucket(config(frame_stride=1, buckets=("41x480x832",)), small) is None
    wanted = config(frame_stride=1, buckets=("41x480x832",), max_upscale=2.0)
    assert best_bucket(wanted, small) == Bucket(41, 480, 832)
    assert kept(wanted, small, Bucket(41, 480, 832)) == 1.0
    assert kept(wanted, Outline(82, 480, 1664, True), Bucket(41, 480, 832)) == 0.25


@pytest.mark.parametrize("text", ["480x832", "41x480", "0x480x832", "41 x 480 x 832", "axbxc"])
def test_a_bucket_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"data.buckets: came .*FRAMESxHEIGHTxWIDTH"):
        Bucket.parse(text)
