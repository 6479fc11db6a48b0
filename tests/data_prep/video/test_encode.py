"""Window bytes: equal for equal frames, and close to the picture."""

import hashlib
import io

import av
import numpy as np
import pytest

from data_prep.decode import decode_mp4
from data_prep.video.encode import encode_mp4


@pytest.fixture
def frames():
    y, x, t = np.mgrid[0:96, 0:160, 0:17]
    smooth = [127 + 120 * np.sin((x * a + y * b) / 20 + t / 5) for a, b in [(1, 0), (0, 1), (1, 1)]]
    return np.stack(smooth, -1).transpose(2, 0, 1, 3).astype(np.uint8)


def test_equal_frames_give_equal_bytes(frames):
    digests = {hashlib.sha256(encode_mp4(frames.copy(), 12.5)).hexdigest() for _ in range(3)}
    assert len(digests) == 1


def test_decodes_to_nearly_the_same(frames):
    back = decode_mp4(encode_mp4(frames, 12.5))
    assert back.shape == frames.shape and back.dtype == np.uint8
    assert np.abs(back.astype(int) - frames).mean() < 3


@pytest.mark.parametrize(("fps", "expected"), [(12.5, 12.5), (29.97, 29.97), (7.99201, 7.992)])
def test_rate_and_group_of_pictures(frames, fps, expected):
    with av.open(io.BytesIO(encode_mp4(frames, fps))) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate) == pytest.approx(expected, abs=1e-3)
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert [p.is_keyframe for p in container.demux(stream) if p.size] == [True] + [False] * 16
        assert "creation_time" not in container.metadata | stream.metadata
