"""Video files and bytes to RGB frames with their presentation times: one seam, two readers.

PyAV reads everything, costs what ffmpeg's decoding and scaling cost, and is the default. decord, if asked for, is
used on what it reads exactly (see ``probe``) and where its chunks begin at key frames. They differ on damage: of
120 H.264 files with one bit flipped, PyAV refused 113 and gave 2 visibly wrong; decord gave 71 so, silently.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from data_prep.config import Reader
from data_prep.records import F64, U8, InputError
from data_prep.video.probe import Probe, Trait, UnusableError, opened, probe
from data_prep.video.tone import HLG, PQ, to_sdr

READ_BY_DECORD: frozenset[Trait] = frozenset({"variable_rate"})
"""The traits that decord reads exactly: time stamps are used, never ``index / fps``."""

MAX_DECODED = 1.1
"""Frames decoded for each that is needed. decord begins a chunk at the key frame before it: where groups are long
against a chunk it would decode most of them twice, so PyAV reads such files."""


@dataclass(frozen=True)
class Chunk:
    """Frames ``[start, start + n)`` of a file. frames: u8[n,H,W,3] RGB; times_s: f64[n] from the first frame."""

    start: int
    frames: U8
    times_s: F64


class FrameReader(Protocol):
    """Reads a whole file in order, in chunks of at most ``max_chunk_bytes`` (one frame at least)."""

    def __call__(self, path: Path, long_side_px: int, max_chunk_bytes: int) -> Iterator[Chunk]: ...


def iter_frames(
    path: Path, long_side_px: int = 1280, max_chunk_bytes: int = 512 * 1024**2, reader: Reader | None = None
) -> Iterator[Chunk]:
    """All frames of a video, each once and in order, upright, in SDR, shrunk so that the longer side is
    ``long_side_px``.

    ``reader`` is a key of READERS; None probes the file and takes the one that gets it right. Raises
    UnusableError where the file does not decode.
    """
    name = reader or fitting_reader(probe(path), long_side_px, max_chunk_bytes)
    return READERS[name](path, long_side_px, max_chunk_bytes)


def fitting_reader(found: Probe, long_side_px: int, max_chunk_bytes: int) -> Reader:
    """decord where it reads every frame rightly and hardly one twice, else PyAV."""
    if not READ_BY_DECORD.issuperset(found.traits):
        return "pyav"
    most = _most_frames(working_size(found.width_px, found.height_px, long_side_px), max_chunk_bytes)
    decoded = num_decoded(found.num_frames, found.keys, most)
    return "decord" if decoded <= MAX_DECODED * found.num_frames else "pyav"


def num_decoded(num_frames: int, keys: Sequence[int], most: int) -> int:
    """Frames that decord decodes for chunks of at most ``most``: each chunk from the key frame before it."""
    return sum(
        end - max((key for key in keys if key <= start), default=0)
        for start, end in _chunks(num_frames, keys, most)
    )


@lru_cache(1)
def decoder_versions() -> dict[str, str]:
    """Name and version by reader: results may differ between versions, so they depend on these too."""
    return {"decord": f"decord {version('decord')}", "pyav": f"pyav {version('av')}"}


def working_size(width_px: float, height_px: float, long_side_px: int) -> tuple[int, int]:
    """(width, height) at which frames are analysed: even, never enlarged, the longer side ≤ ``long_side_px``."""
    scale = min(1.0, long_side_px / max(width_px, height_px))
    return max(2, round(width_px * scale / 2) * 2), max(2, round(height_px * scale / 2) * 2)


def _shown_size(stream: Any) -> tuple[float, float]:
    """(width, height) in square pixels; a file whose pixels are not square is stretched sideways."""
    return stream.width * float(stream.sample_aspect_ratio or 1), stream.height


def read_with_decord(path: Path, long_side_px: int, max_chunk_bytes: int) -> Iterator[Chunk]:
    """decord, at the size asked for from the start, one thread, one reader a chunk.

    An idle reader reads ahead (2.3 GB seen on one 4K file), so it is rewound and closed before a chunk is handed
    over. The next one decodes from a key frame again; so that little is decoded twice, a chunk ends before a key
    frame wherever one lies in its last half.
    """
    import decord

    with opened(path) as stream:
        size_px = working_size(*_shown_size(stream), long_side_px)
    most = _most_frames(size_px, max_chunk_bytes)
    try:
        video = _decord_reader(path, size_px)
        if not len(video):
            raise UnusableError("unreadable", "0 frames", "at least 1")
        spans_s = np.asarray(video.get_frame_timestamp(range(len(video))), np.float64).reshape(-1, 2)
        times_s = spans_s[:, 0] - spans_s[0, 0]
        keys = video.get_key_indices()
        del video
        for start, end in _chunks(len(times_s), keys, most):
            yield Chunk(start, _decord_frames(path, size_px, start, end), times_s[start:end])
    except decord.DECORDError as error:
        raise UnusableError("unreadable", path.name, "a whole video file", str(error)[-500:]) from error


def _decord_reader(path: Path, size_px: tuple[int, int]) -> Any:
    import decord

    return decord.VideoReader(str(path), decord.cpu(0), *size_px, num_threads=1)


def _decord_frames(path: Path, size_px: tuple[int, int], start: int, end: int) -> U8:
    """u8[end-start,H,W,3]; the reader does not outlive the call."""
    video = _decord_reader(path, size_px)
    frames = np.from_dlpack(_Borrowed(video.get_batch(range(start, end))))
    video.seek(0)
    return np.asarray(frames, np.uint8)


class _Borrowed:
    """decord's frames for numpy without a copy, which would double a chunk (0.8 instead of 0.4 GB at 132 frames
    of 720p). decord speaks the older half of the DLPack protocol only."""

    def __init__(self, frames: Any) -> None:
        self._frames = frames

    def __dlpack__(self, **_: object) -> Any:
        return self._frames.to_dlpack()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # kDLCPU


def _most_frames(size_px: tuple[int, int], max_chunk_bytes: int) -> int:
    return max(1, max_chunk_bytes // (size_px[0] * size_px[1] * 3))


def _chunks(num_frames: int, keys: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Spans of at most ``most`` frames that end before a key frame where one lies in their last half."""
    start = 0
    while start < num_frames:
        end = min(start + most, num_frames)
        if end < num_frames:
            end = max((key for key in keys if start + most // 2 < key <= end), default=end)
        yield start, end
        start = end


def read_with_pyav(path: Path, long_side_px: int, max_chunk_bytes: int) -> Iterator[Chunk]:
    """FFmpeg through PyAV, one thread, each frame decoded once; rotation is applied, edit lists are honoured, 10
    bit becomes 8, HDR becomes SDR."""
    start = 0
    images = iter_images(path, long_side_px)
    for first in images:
        most = max(1, max_chunk_bytes // first[0].nbytes)
        frames, times_s = np.empty((most, *first[0].shape), np.uint8), np.empty(most, np.float64)
        count = 0
        for image, time_s in itertools.chain([first], itertools.islice(images, most - 1)):
            frames[count], times_s[count] = image, time_s
            count += 1
        yield Chunk(start, frames[:count], times_s[:count])
        start += count


def iter_images(path: Path, long_side_px: int) -> Iterator[tuple[U8, float]]:
    """(u8[H,W,3], seconds from the first frame) of every frame in order of presentation, by PyAV.

    Raises:
        UnusableError: a frame is damaged, or of another size or kind than the file says.
    """
    from av.video.reformatter import VideoReformatter

    first_s = None
    scaler = VideoReformatter()  # a frame's own reformat would make its filters anew for each frame
    with opened(path) as stream:
        shown_px = stream.width, stream.height
        size_px = working_size(*_shown_size(stream), long_side_px)
        for number, frame in enumerate(stream.container.decode(stream)):
            if frame.is_corrupt or frame.pts is None:
                raise UnusableError("unreadable", f"frame {number} is damaged", "whole frames")
            if (frame.width, frame.height) != shown_px:
                came = f"frame {number} has {frame.width}x{frame.height}"
                raise UnusableError("unreadable", came, f"the file's {shown_px[0]}x{shown_px[1]}")
            first_s = frame.time if first_s is None else first_s
            yield _to_rgb(scaler, frame, size_px), frame.time - first_s


def _to_rgb(scaler: Any, frame: Any, size_px: tuple[int, int]) -> U8:
    """u8[H,W,3], upright; bicubic as decord's filter graph, so that the two agree. HDR is shrunk first."""
    transfer = int(frame.color_trc)
    form = "rgb48le" if transfer in (PQ, HLG) else "rgb24"
    image = scaler.reformat(frame, *size_px, form, interpolation="BICUBIC").to_ndarray()
    if image.dtype == np.uint16:
        image = to_sdr(image, transfer)
    turns = round(frame.rotation / 90) % 4  # the display matrix turns counter-clockwise, as np.rot90 does
    return np.asarray(np.ascontiguousarray(np.rot90(image, turns)), np.uint8)


def decode_mp4(data: bytes) -> U8:
    """u8[T,H,W,3] RGB, all frames of an encoded window in order. Raises InputError for bytes that are none."""
    import av

    try:
        with av.open(io.BytesIO(data)) as container:
            container.streams.video[0].codec_context.thread_count = 1
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise InputError(f"mp4 of {len(data)} bytes: unreadable; it must have frames ({error})") from error


READERS: dict[Reader, FrameReader] = {"decord": read_with_decord, "pyav": read_with_pyav}
