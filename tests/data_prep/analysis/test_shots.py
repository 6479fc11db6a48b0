"""Cuts, exact to the frame, and what must not be one."""

import numpy as np
import pytest

from data_prep.analysis.shots import DETECTORS, CutFinder, shots_between, thumbnail
from data_prep.config import ShotConfig
from data_prep.decode import iter_frames
from data_prep.records import Shot


def scene(seed: int, num_frames: int, drift_px: int = 2) -> list[np.ndarray]:
    """A coloured, smooth picture that slides by ``drift_px`` a frame and flickers a little."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 16, 3)).astype(np.uint8)
    wide = np.kron(coarse, np.ones((16, 16, 1), np.uint8))
    return [
        np.clip(np.roll(wide, n * drift_px, 1).astype(int) + rng.integers(-4, 5), 0, 255).astype(np.uint8)
        for n in range(num_frames)
    ]


def cuts_of(frames, **shots):
    finder = CutFinder(ShotConfig(**shots))
    num_frames = 0
    for frame in frames:
        finder.see(thumbnail(frame))
        num_frames += 1
    return [at for at in range(num_frames) if finder.is_cut(at)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("detector", ["content", "adaptive"])
def test_cuts_are_exact_to_the_frame(seed, detector):
    frames = scene(10 * seed, 20) + scene(10 * seed + 1, 13) + scene(10 * seed + 2, 9)
    assert cuts_of(frames, detector=detector) == [20, 33]


@pytest.mark.parametrize("detector", sorted(DETECTORS))
def test_a_cut_is_known_after_the_delay_that_is_promised(detector):
    """And not later: who follows the faces lets a frame go then."""
    finder = CutFinder(ShotConfig(detector=detector))
    for at, frame in enumerate(scene(0, 20) + scene(1, 13)):
        finder.see(thumbnail(frame))
        assert finder.is_cut(20) == (at >= 20 + finder.delay)


def test_a_whipped_camera_is_no_cut_to_the_detector_that_compares_with_what_is_usual():
    pan = scene(1, 30, drift_px=12)
    assert len(cuts_of(pan)) == 29 and cuts_of(pan, detector="adaptive") == []


def test_cuts_survive_encoding_and_decoding(make_video):
    images = scene(1, 20) + scene(2, 13) + scene(3, 9)
    path = make_video(images=images)
    assert cuts_of(f for chunk in iter_frames(path) for f in chunk.frames) == [20, 33]


def test_movement_and_fading_light_are_no_cuts():
    still = scene(4, 1)[0]
    fading = [(still * (1 - n / 60)).astype(np.uint8) for n in range(30)]
    assert cuts_of(scene(5, 40, drift_px=4)) == [] and cuts_of(fading) == []


def test_shots_tile_the_clip():
    assert shots_between([20, 33], 42) == (Shot(0, 0, 20), Shot(1, 20, 33), Shot(2, 33, 42))
    assert shots_between([], 5) == (Shot(0, 0, 5),)
