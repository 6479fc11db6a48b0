"""Frames into an H.264 file whose bytes depend on the frames alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import av

from data_prep.records import U8

# No B-frames, so that the mp4 needs no edit list (decord reads those wrongly); a key frame a second, each closing
# its group; crf 20 leaves a mean error of about 2 of 255; cpu-independent, since x264 is not deterministic without.
X264 = (
    "threads=1:lookahead-threads=1:cpu-independent=1:keyint=24:min-keyint=24:scenecut=0:open-gop=0:bframes=0"
)


def write_film(path: Path, frames: Iterable[U8], size_px: tuple[int, int], fps: int) -> None:
    """Encode u8[H,W,3] RGB frames of ``size_px`` (width, height) at a constant rate; no timestamps, one thread."""
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as out:
        stream = out.add_stream("libx264", rate=fps)
        stream.width, stream.height = size_px
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        stream.options = {"crf": "20", "preset": "veryfast", "x264-params": X264}
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode(None))
