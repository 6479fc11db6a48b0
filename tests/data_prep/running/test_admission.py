"""Memory and time that a clip is admitted with, against sums made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from data_prep.config import DecodeConfig
from data_prep.records import Clip
from data_prep.running.admission import MODELS_BYTES, memory_bytes, timeout_s

SMALL = Clip("a", "s", "a.mp4", 0.0, 4.0, 25.0, 1280, 720)


def test_a_short_clip_needs_its_frames_twice_and_the_decoders_pictures() -> None:
    frames, pictures = 100 * 1280 * 720 * 3, 10 * 1280 * 720 * 3
    assert memory_bytes(SMALL, DecodeConfig()) == MODELS_BYTES + 2 * frames + pictures


def test_a_long_one_needs_no_more_than_its_chunks() -> None:
    needed = [memory_bytes(replace(SMALL, end_s=end_s), DecodeConfig()) for end_s in (60.0, 6000.0)]
    assert needed[0] == needed[1] == MODELS_BYTES + 2 * 512 * 1024**2 + 10 * 1280 * 720 * 3


@pytest.mark.parametrize(("side", "most_gb"), [((3840, 2160), 1.8), ((7680, 4320), 2.5), ((2160, 3840), 1.8)])
def test_more_pixels_need_more_and_not_without_bound(side: tuple[int, int], most_gb: float) -> None:
    big = replace(SMALL, width_px=side[0], height_px=side[1], end_s=600.0)
    assert memory_bytes(SMALL, DecodeConfig()) < memory_bytes(big, DecodeConfig()) < most_gb * 1e9


def test_a_clip_of_which_nothing_is_known_is_taken_for_a_long_one_in_4k() -> None:
    unknown = replace(SMALL, end_s=0.0, fps=0.0, width_px=0, height_px=0)
    large = replace(SMALL, end_s=900.0, width_px=3840, height_px=2160)
    assert memory_bytes(unknown, DecodeConfig()) == memory_bytes(large, DecodeConfig())


def test_time_grows_with_frames() -> None:
    assert timeout_s(SMALL, DecodeConfig(timeout_s=10)) == 10
    assert timeout_s(replace(SMALL, end_s=100.0), DecodeConfig(timeout_s=10)) == 30  # 2,500 frames
    assert timeout_s(replace(SMALL, end_s=0.0), DecodeConfig(timeout_s=10)) == 10
