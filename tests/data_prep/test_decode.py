"""Readers against the frame numbers painted into made videos, and against each other."""

from fractions import Fraction

import numpy as np
import pytest

from data_prep.decode import (
    READERS,
    decode_mp4,
    decoder_versions,
    fitting_reader,
    iter_frames,
    num_decoded,
    working_size,
)
from data_prep.records import InputError
from data_prep.video.probe import UnusableError, probe
from tests.unusual_videos import KINDS, TRAITS, shown


def read(path, reader=None, max_chunk_bytes=1 << 20, long_side_px=1280):
    chunks = list(iter_frames(path, long_side_px, max_chunk_bytes, reader))
    assert [c.start for c in chunks] == np.cumsum([0] + [len(c.frames) for c in chunks])[:-1].tolist()
    assert all(c.frames.nbytes <= max_chunk_bytes or len(c.frames) == 1 for c in chunks)
    return np.concatenate([c.frames for c in chunks]), np.concatenate([c.times_s for c in chunks])


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_comes_once_in_order_with_its_time(kind, make_video, read_numbers):
    frames, times_s = read(make_video(**KINDS[kind]))
    numbers, expected_s = shown(kind)
    assert read_numbers(frames) == numbers
    np.testing.assert_allclose(times_s, expected_s, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_decord_reads_what_has_no_trait(kind, make_video):
    found = probe(make_video(**KINDS[kind]))
    assert set(found.traits) == TRAITS.get(kind, set())
    is_exact = TRAITS.get(kind, set()) <= {"variable_rate"}
    assert fitting_reader(found, 1280, 2**29) == ("decord" if is_exact else "pyav")


def test_where_decord_would_decode_twice_pyav_reads(make_video):
    found = probe(make_video(**KINDS["h264_one_gop"]))
    chunk = 25 * 96 * 192 * 3
    assert found.keys == (0,)
    assert fitting_reader(found, 1280, 60 * 96 * 192 * 3) == "decord"
    assert fitting_reader(found, 1280, chunk) == "pyav"


@pytest.mark.parametrize(
    ("keys", "most", "expected"),
    [
        ([0], 60, 60),
        ([0], 25, 25 + 50 + 60),
        ([0, 20, 40], 25, 60),
        ([0, 24, 48], 30, 60),
        ([0, 50], 40, 40 + 60),
    ],
)
def test_frames_that_decord_decodes(keys, most, expected):
    assert num_decoded(60, keys, most) == expected


def test_versions_are_those_of_the_libraries():
    import av
    import decord

    assert decoder_versions() == {"decord": f"decord {decord.__version__}", "pyav": f"pyav {av.__version__}"}


@pytest.mark.parametrize("name", ["h264", "h264_variable_rate", "vp9", "mpeg4"])
@pytest.mark.parametrize("long_side_px", [1280, 96])
def test_decord_agrees_with_pyav(name, long_side_px, make_video):
    path = make_video(**KINDS[name])
    frames, times_s = read(path, "decord", long_side_px=long_side_px)
    oracle, oracle_s = read(path, "pyav", long_side_px=long_side_px)
    assert frames.shape == oracle.shape
    assert np.abs(frames.astype(int) - oracle).mean((1, 2, 3)).max() < 2.5
    np.testing.assert_allclose(times_s, oracle_s, atol=1e-5)


def test_rotation_is_applied(make_video):
    images = [np.zeros((96, 192, 3), np.uint8) for _ in range(4)]
    for image in images:
        image[:, :96] = 255  # the left half is white; turned a quarter counter-clockwise it is the lower half
    frames, _ = read(make_video(images=images, rotation_deg=90))
    assert frames.shape == (4, 192, 96, 3)
    assert frames[0, 100:].mean() > 240 and frames[0, :90].mean() < 15


@pytest.mark.parametrize("reader", READERS)
def test_pixels_become_square(reader, make_video, read_numbers):
    frames, _ = read(make_video(num_frames=3, pixel_aspect=Fraction(4, 3)), reader)
    assert frames.shape == (3, 96, 256, 3) and read_numbers(frames) == [0, 1, 2]


def test_chunks_end_before_key_frames(make_video):
    path = make_video(**{"x264-params": "keyint=20:min-keyint=20:scenecut=0"})
    starts = [c.start for c in iter_frames(path, 1280, 25 * 96 * 192 * 3, "decord")]
    assert starts == [0, 20, 40]


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_is_no_video(reader, tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"not a video" * 100)
    with pytest.raises(UnusableError, match="unreadable"):
        read(tmp_path / "x.mp4", reader)


@pytest.mark.parametrize(
    ("size", "long_side_px", "expected"),
    [
        ((3840, 2160), 1280, (1280, 720)),
        ((1001, 333), 500, (500, 166)),
        ((320, 240), 1280, (320, 240)),
        ((1, 9), 4, (2, 4)),
    ],
)
def test_working_size_is_even_and_never_larger(size, long_side_px, expected):
    assert working_size(*size, long_side_px) == expected


def test_decode_mp4_refuses_other_bytes():
    with pytest.raises(InputError, match="unreadable"):
        decode_mp4(b"1234")
