"""``castbank probe``: facts, treatments and refusals, one a line."""

import pytest

from data_prep.decode import decoder_versions
from jobs.__main__ import main

PYAV = decoder_versions()["pyav"]


@pytest.fixture
def clip(tmp_path):
    """Six frames of H.264 with a step that is too long."""
    import av
    import numpy as np

    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(6):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number * 40, np.uint8), format="rgb24")
            frame.pts = number + (number > 3)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def test_it_says_what_it_is_and_what_is_done(clip, capsys):
    assert main(["probe", str(clip), "--read"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("h264 yuv420p 64x48, 6 frames, 20.833 fps")
    assert lines[2:] == [
        "variable_rate: a step 1.00 off the median; canonicalise",
        f"read by {PYAV}, canonical (variable_rate), {PYAV}",
        "7 frames read, each with the time that the file gives it",
    ]


def test_what_is_refused_is_said_with_its_rule(clip, capsys):
    assert main(["probe", str(clip), "unusual.variable_rate=refuse"]) == 3
    assert "refused by variable_rate: a step 1.00" in capsys.readouterr().out
    clip.write_bytes(b"")
    assert main(["probe", str(clip)]) == 3
    assert "refused by unreadable: clip.mp4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.mp4"], "no such file; give a video"),
        (["CLIP", "reader=ffmpeg"], "reader"),
        (["CLIP", "unusual.hdr=ignore"], "hdr"),
        (["CLIP", "unusual.hrd=read"], "hrd"),
    ],
)
def test_wrong_input(arguments, message, clip, capsys):
    assert main(["probe", *(str(clip) if word == "CLIP" else word for word in arguments)]) == 2
    assert message in capsys.readouterr().err
