"""Looks at a video file before anything decodes it: what it is, if it is whole, and what is unusual about it.

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
from data_prep.video.tone import HLG, PQ

Trait = Literal["hdr", "ten_bit", "variable_rate", "codec", "open_gop", "edit_list", "late_start", "rotated"]
"""What decord reads wrongly or not at all, or models take wrongly; also the rules by which it is refused."""

DECORD_CODECS = frozenset({"h264", "mpeg4", "vp8", "vp9", "mjpeg"})
"""Read exactly by decord 0.6.0 where nothing else is unusual. Not AV1 (its FFmpeg 4.1 has no decoder) and not HEVC
(27 of 40 frames right in one file)."""

MAX_UNEVENNESS = 0.5
"""A step between two frames that deviates from the median by more than half shows motion that never was."""

MAX_PIXELS = 8192 * 4352
"""Of a frame: 8K. A decoder holds up to 17 of them, so that a few bytes that claim more would fill the memory."""

MAX_DURATION_S = 24 * 3600.0
"""A time stamp beyond it is damage: no clip lasts a day."""

NAMES = {PQ: "PQ (SMPTE ST 2084)", HLG: "HLG (ARIB STD-B67)"}


class UnusableError(Exception):
    """A video that no clip can be made of; rule, value and limit go to the ledger as they are."""

    def __init__(self, rule: str, value: str, limit: str, detail: str = "") -> None:
        super().__init__(f"{rule}: {value} (allowed: {limit}) {detail}".strip())
        self.rule, self.value, self.limit, self.detail = rule, value, limit, detail


@dataclass(frozen=True)
class Probe:
    """What a video file is.

    width_px × height_px: the coded size, before rotation; bit_depth: of a colour sample; rotation_deg:
    counter-clockwise, to be applied for display; transfer: ITU-T H.273 code; audio: the first sound stream's codec,
    empty without one; times_s: f64[num_frames] presentation times of the shown frames from the first one; keys:
    which of them are key frames, ascending; fps: their mean rate; unevenness: the greatest deviation of a step from
    the median one, as a share of it; start_s: time stamp of the first frame; num_hidden: frames that an edit list
    hides; open_gop: some frames need the group before theirs, which decord gets wrong after a seek; fingerprint:
    sha256 of the bytes.
    """

    path: Path
    codec: str
    pix_fmt: str
    bit_depth: int
    width_px: int
    height_px: int
    rotation_deg: int
    transfer: int
    audio: str
    fps: float
    unevenness: float
    start_s: float
    num_hidden: int
    open_gop: bool
    times_s: F64
    keys: tuple[int, ...]
    fingerprint: str

    @property
    def num_frames(self) -> int:
        return len(self.times_s)

    @property
    def duration_s(self) -> float:
        """From the first frame's start to the last frame's end, the last taken as long as the mean."""
        return float(self.times_s[-1]) + 1.0 / self.fps

    @property
    def traits(self) -> dict[Trait, str]:
        """What is unusual, each with what was found."""
        found: dict[Trait, tuple[bool, str]] = {
            "hdr": (self.transfer in NAMES, NAMES.get(self.transfer, "")),
            "ten_bit": (self.bit_depth > 8, self.pix_fmt),
            "variable_rate": (
                self.unevenness > MAX_UNEVENNESS,
                f"a step {self.unevenness:.2f} off the median",
            ),
            "codec": (self.codec not in DECORD_CODECS, self.codec),
            "open_gop": (self.open_gop, "frames shown before their key frame"),
            "edit_list": (self.num_hidden > 0, f"{self.num_hidden} frames hidden"),
            "late_start": (self.start_s != 0, f"first frame at {self.start_s:.3f} s"),
            "rotated": (self.rotation_deg != 0, f"{self.rotation_deg} degrees"),
        }
        return {name: value for name, (is_so, value) in found.items() if is_so}

    def __str__(self) -> str:
        """One line for a ledger."""
        groups = "open" if self.open_gop else "closed"
        return (
            f"{self.codec} {self.pix_fmt} {self.width_px}x{self.height_px}, {self.num_frames} frames, "
            f"{self.fps:.3f} fps, steps {self.unevenness:.2f} uneven, start {self.start_s:.3f} s, "
            f"{self.num_hidden} hidden, {groups} GOP, {len(self.keys)} key frames, rotation {self.rotation_deg}, "
            f"transfer {self.transfer}, audio {self.audio or 'none'}"
        )


def probe(path: Path) -> Probe:
    """What the file holds.

    Raises:
        UnusableError: with the rule: unreadable, truncated, no_video, frame_size.
    """
    fingerprint = _fingerprint(path)
    with opened(path) as stream:
        context = stream.codec_context
        sounds = stream.container.streams.audio
        if not 0 < context.width * context.height <= MAX_PIXELS:
            raise UnusableError(
                "frame_size", f"{context.width}x{context.height}", f"1 to {MAX_PIXELS} pixels"
            )
        shown = _packets(stream, int(stream.frames))
        times_s = shown.times_s - shown.times_s[0]
        found = Probe(
            path=path,
            codec=str(context.name).removeprefix("lib").replace("dav1d", "av1"),
            pix_fmt=str(context.pix_fmt),
            bit_depth=_bit_depth(context),
            width_px=int(context.width),
            height_px=int(context.height),
            rotation_deg=_rotation_deg(path),
            transfer=int(context.color_trc),
            audio=str(sounds[0].codec_context.name) if sounds else "",
            fps=_rate(times_s),
            unevenness=unevenness(times_s),
            start_s=float(shown.times_s[0]),
            num_hidden=shown.num_hidden,
            open_gop=shown.open_gop,
            times_s=times_s,
            keys=shown.keys,
            fingerprint=fingerprint,
        )
    return found


def unevenness(times_s: F64) -> float:
    """The greatest deviation of a step between frames from the median step, as a share of it; 0 if constant."""
    steps_s = np.diff(times_s)
    if not len(steps_s):
        return 0.0
    return float(np.abs(steps_s / np.median(steps_s) - 1).max())


def _rate(times_s: F64) -> float:
    """Mean frames a second; 1 for a single frame."""
    return (len(times_s) - 1) / float(times_s[-1]) if len(times_s) > 1 else 1.0


def _bit_depth(context: Any) -> int:
    return max((int(part.bits) for part in context.format.components), default=8) if context.format else 8


def _fingerprint(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except PermissionError as error:
        raise UnusableError("unreadable", path.name, "a file that may be read", str(error)) from error


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The first video stream of a file, one decoding thread; FFmpeg's errors become UnusableError."""
    import av

    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise UnusableError("no_video", path.name, "a file with a video stream")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise UnusableError("unreadable", "a codec that FFmpeg has no decoder for", "a video codec")
            stream.codec_context.thread_count = 1
            yield stream
    except av.FFmpegError as error:
        raise UnusableError("unreadable", path.name, "a whole video file", str(error)) from error


@dataclass(frozen=True)
class _Shown:
    """times_s: f64[n] stamps of the shown frames, ascending; keys: which of them are key frames."""

    times_s: F64
    keys: tuple[int, ...]
    num_hidden: int
    open_gop: bool


def _packets(stream: Any, promised: int) -> _Shown:
    """What the packets say. A group is open where a frame that comes after a key frame in the file is shown before
    it; the file was cut where there are fewer packets than its header promises, or one is torn.
    """
    stamps: list[tuple[int, bool]] = []
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
            stamps.append((packet.pts, bool(packet.is_keyframe)))
    found = len(stamps) + num_hidden
    if num_torn or found < promised:
        raise UnusableError(
            "truncated", f"{found - num_torn} whole frames", f"the header's {promised or found}"
        )
    if not stamps:
        raise UnusableError("unreadable", "0 frames", "at least 1")
    stamps.sort()
    times_s = np.array([pts for pts, _ in stamps], np.float64) * float(stream.time_base)
    _check_stamps(times_s)
    keys = tuple(at for at, (_, is_key) in enumerate(stamps) if is_key)
    return _Shown(times_s, keys, num_hidden, open_gop)


def _check_stamps(times_s: F64) -> None:
    """Raises UnusableError for stamps that no camera gave: two frames at one time, or a clip of more than a day."""
    if len(times_s) > 1 and float(np.diff(times_s).min()) <= 0:
        raise UnusableError(
            "unreadable", "two frames with one time stamp", "a time of its own for every frame"
        )
    if times_s[-1] - times_s[0] > MAX_DURATION_S:
        value = f"{times_s[-1] - times_s[0]:.0f} s long"
        raise UnusableError("unreadable", value, f"at most {MAX_DURATION_S:.0f} s")


def _rotation_deg(path: Path) -> int:
    """Of the first frame, which must decode."""
    with opened(path) as stream:
        for frame in stream.container.decode(stream):
            return int(frame.rotation)
    raise UnusableError("unreadable", "no frame decodes", "at least 1")
