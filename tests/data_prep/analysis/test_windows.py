"""Which frames become windows, what they look like, and that only open windows are held."""

import io
from dataclasses import replace

import av
import numpy as np
import pytest

from data_prep.analysis.windows import Framing, WindowRecorder, open_starts, window_starts
from data_prep.config import WindowConfig
from data_prep.decode import decode_mp4
from data_prep.video.probe import unevenness

SMALL = WindowConfig(num_frames=5, stride=2, hop=10, width_px=32, height_px=16)


@pytest.mark.parametrize(
    ("num_frames", "expected"), [(8, []), (9, [0]), (18, [0]), (19, [0, 10]), (30, [0, 10, 20])]
)
def test_windows_start_every_hop_and_fit(num_frames, expected):
    assert list(window_starts(num_frames, SMALL)) == expected


@pytest.mark.parametrize("hop", [1, 3, 9, 10, 25])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_open_starts_are_those_whose_window_holds_the_frame(hop, stride):
    config = replace(SMALL, hop=hop, stride=stride)
    for offset in range(60):
        brute = [s for s in range(0, offset + 1, hop) if offset in range(s, s + 5 * stride, stride)]
        assert open_starts(offset, config) == brute


@pytest.mark.parametrize("hop", [4, 10])
def test_the_recorder_keeps_the_windows_that_fit_and_none_across_a_cut(hop):
    config = replace(SMALL, hop=hop)
    recorder = WindowRecorder(Framing.of(64, 32, config), config, np.arange(40) / 25)
    recorded = []
    for frame in range(40):
        if frame == 21:
            recorder.cut()
        offset = frame if frame < 21 else frame - 21
        image = np.full((32, 64, 3), 4 * frame, np.uint8)
        used, done = recorder.see(frame, offset, image)
        assert used == bool(open_starts(offset, config))
        recorded += done
    expected = [*window_starts(21, config), *(21 + s for s in window_starts(19, config))]
    assert [r.frames.tolist() for r in recorded] == [list(range(s, s + 10, 2)) for s in expected]
    for window in recorded:
        shades = decode_mp4(window.mp4).mean((1, 2, 3))
        np.testing.assert_allclose(shades, 4 * window.frames, atol=3)


@pytest.mark.parametrize("size", [(960, 540), (540, 960), (3840, 2160), (100, 100), (160, 96), (33, 97)])
def test_points_land_where_the_picture_lands(size):
    width, height = size
    framing = Framing.of(width, height, WindowConfig())
    assert (
        framing.left_px + framing.crop_width_px <= width and framing.top_px + framing.crop_height_px <= height
    )
    assert framing.crop_width_px / framing.crop_height_px == pytest.approx(160 / 96, rel=0.03)
    image = np.zeros((height, width, 3), np.uint8)
    left, top = framing.left_px + framing.crop_width_px // 2, framing.top_px + framing.crop_height_px // 4
    image[top:, left:] = 255
    corner = framing.points(np.array([left, top], np.float32))
    small = framing.image(image)[..., 0] / 255
    assert small.shape == (96, 160)
    area = (160 - corner[0]) * (96 - corner[1])
    assert small.sum() == pytest.approx(area, rel=0.01)


def test_a_window_plays_at_its_own_rate():
    times_s = np.concatenate([np.arange(20) / 50, 0.4 + np.arange(20) / 10])
    recorder = WindowRecorder(Framing.of(64, 32, SMALL), SMALL, times_s)
    image = np.zeros((32, 64, 3), np.uint8)
    recorded = [r for frame in range(40) for r in recorder.see(frame, frame, image)[1]]
    rates = []
    for window in recorded:
        with av.open(io.BytesIO(window.mp4)) as container:
            rates.append(float(container.streams.video[0].average_rate))
    assert rates == pytest.approx([25, 25, 5, 5])


@pytest.mark.parametrize(
    ("times_s", "expected"),
    [([0, 1, 2, 3], 0), ([0, 1, 2, 4], 1), ([0, 1, 2, 2.5], 0.5), ([0, 0.9, 2, 3], 0.1)],
)
def test_unevenness(times_s, expected):
    assert unevenness(np.array(times_s, float)) == pytest.approx(expected)
