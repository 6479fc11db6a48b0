"""What frames look like, on pictures that were made to look so."""

import cv2
import numpy as np
import pytest

from data_prep.analysis.pictures import (
    SHARPNESS_EVERY,
    TEXT_EVERY,
    PictureMeter,
    blur,
    clipped,
    colour,
    darkest_border,
)


def noise(height=90, width=160, low=20, high=230):
    return np.random.default_rng(0).integers(low, high, (height, width, 3)).astype(np.uint8)


def test_clipped_is_the_share_of_pixels_without_a_picture():
    picture = np.full((100, 100, 3), 128, np.uint8)
    picture[:12], picture[12:20] = 255, 2
    assert clipped(picture) == pytest.approx(0.2)
    assert clipped(noise()) == 0


def test_a_black_bar_is_seen_at_whatever_side_it_is():
    for side in (np.s_[:5], np.s_[-5:], np.s_[:, :5], np.s_[:, -5:]):
        barred = noise()
        barred[side] = 1
        assert darkest_border(barred) < 3 < darkest_border(noise())


def test_colour_is_the_variance_over_the_three():
    picture = noise()
    assert colour(picture) == pytest.approx(picture.astype(float).var(-1).mean())
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    assert colour(grey) == 0


def test_blur_is_the_variance_of_the_laplacian():
    grey = cv2.cvtColor(noise(), cv2.COLOR_RGB2GRAY)
    assert blur(noise()) == pytest.approx(cv2.Laplacian(grey, cv2.CV_64F).var(), rel=1e-6)
    assert blur(cv2.GaussianBlur(noise(), (0, 0), 2)) < blur(noise()) / 100


def test_a_clip_of_two_shots():
    """The left half moves by 2 px of the thumbnail in the first shot; the second is one frame."""
    asked = []
    meter = PictureMeter(5.0, (4, 2), lambda image: float(asked.append(image.shape) or 0.25))
    flow = np.zeros((90, 160, 2), np.float32)
    flow[:, :80] = (2, 0)
    for offset in [*range(30), 0]:
        meter.see(offset, noise(450, 800), noise(), flow)
    measured = meter.finish()
    np.testing.assert_allclose(measured.motion_px[1:30], 2 * 5 / 2)
    assert np.isnan(measured.motion_px[[0, 30]]).all()
    assert np.flatnonzero(~np.isnan(measured.sharpness)).tolist() == [*range(0, 30, SHARPNESS_EVERY), 30]
    assert np.flatnonzero(measured.text == 0.25).tolist() == [*range(0, 30, TEXT_EVERY), 30]
    assert asked == [(450, 800, 3)] * 3
    assert measured.stillest_px[0] == 0 and np.isnan(measured.stillest_px[1])
    assert {len(v) for name, v in vars(measured).items() if name != "stillest_px"} == {31}


def test_the_stillest_patch_of_a_picture_that_moves_everywhere():
    meter = PictureMeter(1.0, (4, 2), None)
    flow = np.full((90, 160, 2), 3, np.float32)
    for offset in range(3):
        meter.see(offset, noise(), noise(), flow)
    measured = meter.finish()
    assert measured.stillest_px == pytest.approx([np.hypot(3, 3)], rel=1e-4) and np.isnan(measured.text).all()
