"""Motion and flicker of videos whose motion and flicker are known, because they were made so."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from data_prep.records import U8
from pipeline.judging.video.movement import Movement, MovementMeter, as_figures


def texture(height: int, width: int, seed: int = 0) -> U8:
    """A smooth random picture u8[H,W,3], values 60..195, as pictures are: patches can be told apart."""
    noise = np.random.default_rng(seed).random((height // 8, width // 8, 3)).astype(np.float32)
    return (60 + 135 * cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)).astype(
        np.uint8
    )


def moved(step_px: float, num_frames: int = 6, height: int = 160, width: int = 320) -> U8:
    """A window that goes over a texture by ``step_px`` to the right and half as much down, each frame."""
    large = texture(height + 128, width + 128)
    frames = []
    for t in range(num_frames):
        shift = np.float32([[1, 0, -t * step_px], [0, 1, -t * step_px / 2]])
        frames.append(cv2.warpAffine(large, shift, (width, height), flags=cv2.INTER_LINEAR))
    return np.stack(frames)


def measure(*chunks: U8) -> Movement:
    meter = MovementMeter()
    for chunk in chunks:
        meter.see(chunk)
    return meter.result()


@pytest.mark.parametrize("step_px", [0.0, 0.5, 2.0, 6.0])
def test_motion_of_a_known_translation(step_px: float) -> None:
    found = measure(moved(step_px))
    length = 100 * np.hypot(step_px, step_px / 2) / 320
    assert found.motion == pytest.approx(length, abs=0.05 * length + 0.02)
    assert found.flicker < 1.5  # of 255: interpolation alone
    assert found.cuts == 0


def test_motion_is_relative_to_size() -> None:
    small = moved(2.0)
    large = np.stack([cv2.resize(frame, None, fx=4, fy=4, interpolation=cv2.INTER_LINEAR) for frame in small])
    assert measure(large).motion == pytest.approx(measure(small).motion, rel=0.05)


@pytest.mark.parametrize("levels", [1, 4, 20])
def test_flicker_of_a_known_change_of_luminance(levels: int) -> None:
    still = np.repeat(texture(160, 320)[None], 6, 0).astype(int)
    still[1::2] += levels
    found = measure(still.astype(np.uint8))
    assert found.flicker == pytest.approx(levels, abs=0.1)
    assert found.motion < 0.1
    assert found.vbench_flickering == pytest.approx(1 - levels / 255, abs=1e-6)


def test_motion_is_no_flicker_and_flicker_is_seen_in_motion() -> None:
    moving = moved(3.0).astype(int)
    flickering = moving.copy()
    flickering[1::2] += 12
    steady, unsteady = measure(moving.astype(np.uint8)), measure(flickering.astype(np.uint8))
    assert steady.flicker < 1.5
    assert 11 < unsteady.flicker < 13
    assert steady.vbench_flickering < 1 - 4 / 255  # where nothing is followed, what moves flickers
    assert unsteady.motion == pytest.approx(steady.motion, rel=0.05)


def test_vbench_flickering_is_its_formula() -> None:
    frames = np.random.default_rng(1).integers(100, 132, (4, 48, 64, 3), np.uint8)
    change = np.mean([np.abs(a.astype(float) - b).mean() for a, b in itertools.pairwise(frames)])
    assert measure(frames).vbench_flickering == pytest.approx(1 - change / 255, abs=1e-9)


def test_a_cut_is_counted_and_left_out() -> None:
    first, second = moved(1.0), 255 - moved(1.0)[:, ::-1]
    found = measure(first, np.ascontiguousarray(second))
    assert found.cuts == 1
    assert found.motion == pytest.approx(measure(first).motion, rel=0.1)


def test_chunks_make_no_difference() -> None:
    frames = moved(2.0)
    assert measure(frames[:1], frames[1:4], frames[4:]) == measure(frames)


@pytest.mark.parametrize("frames", [moved(1.0, num_frames=1), moved(1.0)[:0]])
def test_nothing_to_compare(frames: U8) -> None:
    assert as_figures(measure(frames)) == {"cuts": 0.0}


def test_a_thumbnail_too_small_for_flow() -> None:
    assert measure(moved(1.0, height=8, width=8)).motion == 0
