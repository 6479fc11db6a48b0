"""What a file is said to be, and which files are refused by which rule."""

import hashlib

import pytest

from data_prep.video.probe import UnusableError, probe


def test_a_plain_file(make_video):
    path = make_video()
    found = probe(path)
    assert (found.codec, found.pix_fmt, found.width_px, found.height_px) == ("h264", "yuv420p", 192, 96)
    assert (found.num_frames, found.fps, found.bit_depth, found.audio) == (60, 25.0, 8, "")
    assert found.unevenness == pytest.approx(0, abs=1e-9)
    assert found.duration_s == pytest.approx(2.4)
    assert (found.traits, found.num_hidden, found.open_gop, found.rotation_deg) == ({}, 0, False, 0)
    assert found.keys == (0, 24, 48)
    assert found.fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()


def test_variable_rate_is_seen(make_video):
    found = probe(make_video(num_frames=6, pts=[0, 40, 70, 150, 160, 300]))
    assert found.traits == {"variable_rate": "a step 2.50 off the median"}
    assert found.times_s.tolist() == pytest.approx([0, 0.04, 0.07, 0.15, 0.16, 0.3])


def test_rotation_is_seen(make_video):
    assert probe(make_video(num_frames=3, rotation_deg=90)).traits == {"rotated": "90 degrees"}


def test_a_frame_that_would_fill_the_memory_is_refused_before_it_is_decoded(make_video, monkeypatch):
    monkeypatch.setattr("data_prep.video.probe.MAX_PIXELS", 192 * 96 - 1)
    with pytest.raises(UnusableError, match="frame_size: 192x96"):
        probe(make_video(num_frames=3))


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_file_cut_after_its_header_is_truncated(share, make_video):
    path = make_video(container={"movflags": "+faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UnusableError, match=r"truncated: .* whole frames .*60"):
        probe(path)


def test_a_file_cut_before_its_header_is_unreadable(make_video):
    path = make_video()
    path.write_bytes(path.read_bytes()[:-800])
    with pytest.raises(UnusableError, match=r"unreadable: clip.mp4"):
        probe(path)


@pytest.mark.parametrize("content", [b"", b"x" * 5000], ids=["empty", "noise"])
def test_what_is_no_video_is_unreadable(content, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(UnusableError, match=r"unreadable: clip.mp4"):
        probe(tmp_path / "clip.mp4")


def test_sound_without_picture(tmp_path):
    import av
    import numpy as np

    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        stream = out.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with pytest.raises(UnusableError, match="no_video"):
        probe(tmp_path / "sound.mp4")
