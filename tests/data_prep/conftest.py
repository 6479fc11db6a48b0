"""Made videos whose every frame carries its own number, so that a reader's frames can be told apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WIDTH_PX, HEIGHT_PX, BITS = 192, 96, 8
VideoMaker = Callable[..., Path]


def numbered_frame(number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """u8[96,192,3]: the number's eight bits as black and white bars over a moving gradient below."""
    frame = np.zeros((HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    frame[48:] = ((np.arange(WIDTH_PX)[:, None] * 2 + number * 5) % 256).astype(np.uint8)
    for bit in range(BITS):
        width = WIDTH_PX // BITS
        frame[:48, bit * width : (bit + 1) * width] = 235 if number >> bit & 1 else 20
    return frame


def numbers_in(frames: np.ndarray[Any, np.dtype[np.uint8]]) -> list[int]:
    """The numbers painted in u8[n,H,W,3] frames of any size."""
    height, width = frames.shape[1:3]
    rows = frames[:, height // 8 : height * 3 // 8].mean((1, 3))
    bars = rows.reshape(len(frames), BITS, width // BITS).mean(2) > 128
    return [sum(1 << bit for bit in range(BITS) if row[bit]) for row in bars]


@pytest.fixture
def read_numbers() -> Callable[[Any], list[int]]:
    return numbers_in


@pytest.fixture(scope="session")
def make_video(tmp_path_factory: pytest.TempPathFactory) -> VideoMaker:
    """Writes ``name`` into a folder of its own, its frames numbered from 0; ``pts`` in ms (default: every 40)."""

    def write(
        *,
        name: str = "clip.mp4",
        num_frames: int = 60,
        codec: str = "libx264",
        pts: Sequence[int] | None = None,
        images: Sequence[Any] | None = None,
        rotation_deg: int = 0,
        container: dict[str, str] | None = None,
        transfer: int | None = None,
        pixel_aspect: Fraction | None = None,
        pix_fmt: str = "yuv420p",
        size_px: tuple[int, int] = (WIDTH_PX, HEIGHT_PX),
        **options: str,
    ) -> Path:
        import av

        width, height = size_px
        images = images or [numbered_frame(n)[:height, :width] for n in range(num_frames)]
        path = tmp_path_factory.mktemp("video") / name
        with av.open(str(path), "w", options=container or {}) as out:
            stream = out.add_stream(codec, rate=Fraction(25))
            stream.height, stream.width, stream.pix_fmt = *images[0].shape[:2], pix_fmt
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
            stream.codec_context.thread_count = 1
            stream.options = {"g": "24", **options}
            if transfer is not None:
                stream.codec_context.color_trc = transfer
            if pixel_aspect is not None:
                stream.codec_context.sample_aspect_ratio = pixel_aspect
            if rotation_deg:
                stream.set_display_rotation(rotation_deg)
            for number, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                frame.pts = pts[number] if pts is not None else number * 40
                frame.time_base = Fraction(1, 1000)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        return path

    return write
