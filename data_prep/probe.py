"""Looks at a video file before anything decodes it: what it is, if it is whole, and which reader gets it right.

Costs one pass over the packets (no decoding beyond the first frame) and one over the bytes for the fingerprint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_prep.records import F64

Reader = Literal["decord", "pyav"]

DECORD_CODECS = frozenset({"h264", "mpeg4", "vp8", "vp9", "mjpeg"})
"""Read exactly by decord 0.6.0 where the rest of ``Probe.reader`` agrees. Not AV1 (its FFmpeg 4.1 has no decoder)
and not HEVC (27 of 40 frames right in one file)."""

HDR_TRANSFERS = {16: "PQ (SMPTE ST 2084)", 18: "HLG (ARIB STD-B67)"}
"""ITU-T H.273 transfer characteristics that no reader here maps to 8 bit: the frames come out grey."""


class UnusableError(Exception):
    """A video that no clip can be made of; rule, value and limit go to the ledger as they are."""

    def __init__(self, rule: str, value: str, limit: str, detail: str = "") -> None:
        super().__init__(f"{rule}: {value} (allowed: {limit}) {detail}".strip())
        self.rule, self.value, self.limit, self.detail = rule, value, limit, detail


@dataclass(frozen=True)
class Probe:
    """What a video file is.

    width_px × height_px: the coded size, before rotation; rotation_deg: counter-clockwise, to be applied for
    display; times_s: f64[num_frames] presentation times of the shown frames from the first one; fps: their mean
    rate; variable_rate: intervals differ by more than a tenth; start_s: time stamp of the first frame;
    num_hidden: frames that an edit list hides; open_gop: some frames need the group before theirs, which decord
    gets wrong after a seek; fingerprint: sha256 of the bytes; reader: the one to use.
    """

    path: Path
    codec: str
    pix_fmt: str
    width_px: int
    height_px: int
    rotation_deg: int
    transfer: int
    fps: float
    variable_rate: bool
    start_s: float
    num_hidden: int
    open_gop: bool
    times_s: F64
    fingerprint: str
    reader: Reader

    @property
    def num_frames(self) -> int:
        return len(self.times_s)

    @property
    def duration_s(self) -> float:
        """From the first frame's start to the last frame's end, the last taken as long as the mean."""
        return float(self.times_s[-1]) + 1.0 / self.fps


def probe(path: Path) -> Probe:
    """What the file holds. Raises UnusableError with the rule: unreadable, truncated, no_video, hdr."""
    with path.open("rb") as file:
        fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
    with opened(path) as stream:
        context, promised = stream.codec_context, int(stream.frames)
        codec, pix_fmt = str(context.name), str(context.pix_fmt)
        width_px, height_px, transfer = int(context.width), int(context.height), int(context.color_trc)
        if transfer in HDR_TRANSFERS:
            raise UnusableError("hdr", HDR_TRANSFERS[transfer], "SDR", "convert it to 8-bit SDR first")
        shown_s, num_hidden, open_gop = _packets(stream, promised)
    rotation_deg = _rotation_deg(path)
    times_s = shown_s - shown_s[0]
    steps_s = np.diff(times_s)
    median_s = float(np.median(steps_s)) if len(steps_s) else 0.0
    fps = (len(times_s) - 1) / float(times_s[-1]) if len(times_s) > 1 else 1.0
    plain = num_hidden == 0 and shown_s[0] == 0 and rotation_deg == 0 and not open_gop
    return Probe(
        path=path,
        codec=codec,
        pix_fmt=pix_fmt,
        width_px=width_px,
        height_px=height_px,
        rotation_deg=rotation_deg,
        transfer=transfer,
        fps=fps,
        variable_rate=bool(len(steps_s) and np.ptp(steps_s) > 0.1 * median_s),
        start_s=float(shown_s[0]),
        num_hidden=num_hidden,
        open_gop=open_gop,
        times_s=times_s,
        fingerprint=fingerprint,
        reader="decord" if plain and codec in DECORD_CODECS else "pyav",
    )


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The first video stream of a file, one decoding thread; FFmpeg's errors become UnusableError."""
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UnusableError("no_video", path.name, "a file with a video stream")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            yield stream
    except av.FFmpegError as error:
        raise UnusableError("unreadable", path.name, "a whole video file", str(error)) from error


def _packets(stream: Any, promised: int) -> tuple[F64, int, bool]:
    """Sorted times of the shown frames in seconds, the number of hidden ones, and whether a group is open: then a
    frame that comes after a key frame in the file is shown before it.

    The packets tell whether the file was cut: there are fewer than its header promises, or one is torn.
    """
    times: list[int] = []
    num_hidden = num_torn = 0
    key_pts = -(2**63)
    open_gop = False
    for packet in stream.container.demux(stream):
        if packet.size == 0:
            continue
        if packet.pts is None:
            raise UnusableError("unreadable", "a frame without time stamp", "a time stamp on every frame")
        num_torn += bool(packet.is_corrupt)
        key_pts = packet.pts if packet.is_keyframe else key_pts
        open_gop |= packet.pts < key_pts
        num_hidden += bool(packet.is_discard)
        if not packet.is_discard:
            times.append(packet.pts)
    found = len(times) + num_hidden
    if num_torn or found < promised:
        raise UnusableError(
            "truncated", f"{found - num_torn} whole frames", f"the header's {promised or found}"
        )
    if not times:
        raise UnusableError("unreadable", "0 frames", "at least 1")
    return np.sort(np.asarray(times, np.float64)) * float(stream.time_base), num_hidden, open_gop


def _rotation_deg(path: Path) -> int:
    """Of the first frame, which must decode."""
    with opened(path) as stream:
        for frame in stream.container.decode(stream):
            return int(frame.rotation)
    raise UnusableError("unreadable", "no frame decodes", "at least 1")
