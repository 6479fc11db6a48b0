"""RGB frames to the bytes of an mp4, the same bytes every time.

x264 as it comes is not deterministic even on one thread: its macroblock tree reads what lay in memory before, and 1
of 20 encodings of the same 17 frames differed. With ``cpu-independent`` 300 of 300 were equal.
"""

from __future__ import annotations

import io
from fractions import Fraction

from data_prep.records import U8

CRF = 12
"""x264's quality; at 160x96 it keeps a mean error below 2 of 255 where 23, the default, smears small faces."""

X264 = "threads=1:lookahead-threads=1:cpu-independent=1:open-gop=0:scenecut=0:keyint=infinite:bframes=0"


def encode_mp4(frames: U8, fps: float) -> bytes:
    """H.264, yuv420p, one closed group of pictures, one thread, no creation time: equal frames give equal bytes.

    frames: u8[T,H,W,3] RGB with even H and W; fps: frames a second, kept to 1/1000.
    """
    import av

    _, height_px, width_px, _ = frames.shape
    rate = Fraction(round(fps * 1000), 1000)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as out:
        stream = out.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width_px, height_px, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        stream.options = {
            "crf": str(CRF),
            "preset": "medium",
            "x264-params": X264,
        }
        for image in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode(None))
    return buffer.getvalue()
