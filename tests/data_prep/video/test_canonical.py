"""Canonical files against the frame numbers painted into the originals, and against what FFmpeg says they are."""

from fractions import Fraction

import av
import numpy as np
import pytest

from data_prep.decode import iter_frames
from data_prep.video.canonical import canonical, constant_rate, frame_map
from data_prep.video.probe import UnusableError, probe
from tests.unusual_videos import KINDS, shown

SOME = ["h264_variable_rate", "h264_edit_list", "h264_late_start", "hevc_open_gop", "hevc_pq", "av1"]


def slow_map(times_s, rate):
    """One frame of the new file after the other: the last old frame that has begun by the middle of its time."""
    return [
        max(n for n, time_s in enumerate(times_s) if time_s <= (k + 0.5) / rate)
        for k in range(round(times_s[-1] * rate) + 1)
    ]


@pytest.mark.parametrize("kind", SOME)
def test_it_is_usual_and_shows_the_frames_of_the_original(kind, make_video, read_numbers):
    numbers, times_s = shown(kind)
    with canonical(probe(make_video(**KINDS[kind])), 192) as path:
        found = probe(path)
        assert found.traits == {} and (found.codec, found.pix_fmt, found.audio) == ("h264", "yuv420p", "")
        assert found.unevenness < 0.01 and len(found.keys) == -(-found.num_frames // 48)
        with av.open(str(path)) as container:
            assert not any(p.is_discard or p.pts != p.dts for p in container.demux(video=0) if p.size)
        chunks = list(iter_frames(path, 192, 1 << 29, "decord"))
    seen = read_numbers(np.concatenate([chunk.frames for chunk in chunks]))
    assert seen == [numbers[n] for n in slow_map(times_s, found.fps)]


def test_a_constant_rate_keeps_every_frame(make_video, read_numbers):
    with canonical(probe(make_video(**KINDS["hevc_ten_bit"])), 96) as path:
        frames = np.concatenate([c.frames for c in iter_frames(path, 96)])
    assert frames.shape == (60, 48, 96, 3) and read_numbers(frames) == list(range(60))


def test_equal_files_give_equal_bytes_and_leave_nothing(make_video, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = probe(make_video(num_frames=20, pts=[n * n * 4 + 30 * n for n in range(20)]))
    contents = []
    for _ in range(2):
        with canonical(found, 192) as path:
            contents.append(path.read_bytes())
            assert not list(tmp_path.iterdir())
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("step_s", "expected"),
    [
        (1 / 25, Fraction(25)),
        (0.0333667, Fraction(30000, 1001)),
        (0.0417083, Fraction(24000, 1001)),
        (1 / 17, Fraction(17)),
    ],
)
def test_rates_are_usual_ones_where_near(step_s, expected):
    assert constant_rate(np.arange(40) * step_s) == expected


def test_jitter_moves_no_frame():
    rng = np.random.default_rng(1)
    times_s = np.arange(100) / 25 + np.r_[0, rng.uniform(-0.015, 0.015, 99)]
    assert frame_map(times_s, Fraction(25)).tolist() == list(range(100))


def test_a_pause_of_an_hour_is_refused():
    times_s = np.r_[np.arange(50) / 25, 3600.0]
    with pytest.raises(UnusableError, match=r"variable_rate: 90001 frames .* of 51"):
        frame_map(times_s, constant_rate(times_s))
