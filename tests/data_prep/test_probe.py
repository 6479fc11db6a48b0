"""What a file is said to be, and which files are refused by which rule."""

import hashlib

import pytest

from data_prep.probe import UnusableError, probe


def test_a_plain_file(make_video):
    path = make_video()
    found = probe(path)
    assert (found.codec, found.pix_fmt, found.width_px, found.height_px) == ("h264", "yuv420p", 192, 96)
    assert (found.num_frames, found.fps, found.variable_rate) == (60, 25.0, False)
    assert found.duration_s == pytest.approx(2.4)
    assert (found.reader, found.num_hidden, found.open_gop, found.rotation_deg) == ("decord", 0, False, 0)
    assert found.fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()


def test_variable_rate_is_seen_and_read_by_decord(make_video):
    found = probe(make_video(num_frames=6, pts=[0, 40, 70, 150, 160, 300]))
    assert found.variable_rate
    assert found.times_s.tolist() == pytest.approx([0, 0.04, 0.07, 0.15, 0.16, 0.3])
    assert found.reader == "decord"


@pytest.mark.parametrize(
    "made",
    [
        {"codec": "libsvtav1", "preset": "12", "svtav1-params": "lp=1"},
        {"codec": "libx265", "x265-params": "log-level=none:pools=1"},
        {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0"},
        {"pts": [n * 40 - 400 for n in range(60)]},
        {"pts": [n * 40 + 500 for n in range(60)]},
        {"rotation_deg": 90},
    ],
    ids=["av1", "hevc", "open_gop", "edit_list", "late_start", "rotation"],
)
def test_what_decord_gets_wrong_goes_to_pyav(made, make_video):
    assert probe(make_video(**made)).reader == "pyav"


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused(transfer, name, make_video):
    with pytest.raises(UnusableError, match=f"hdr: {name}"):
        probe(make_video(num_frames=3, transfer=transfer))


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
