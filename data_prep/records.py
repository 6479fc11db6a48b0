"""What travels between the stages of preparation: one frozen record per stage, and the errors people meet.

Coordinates are pixels of the analysed frame (x right, y down, boxes x1 y1 x2 y2), times are seconds, spans are
half-open. A frame index counts the analysed frames of one clip; its presentation time is ``times_s[frame]``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]

Consent = Literal["granted", "unknown", "refused"]
Fate = Literal["kept", "dropped", "quarantined"]
Origin = Literal["other_clip", "other_shot", "same_shot"]
MaskRegion = Literal["face", "person"]

Progress = Callable[[str, int, int], None]
"""Called with (stage, items done, items in all); the command line draws it, a test may ignore it."""


class InputError(Exception):
    """Something a person gave is wrong; the message names it, what came, what is allowed and what to do."""


@dataclass(frozen=True)
class Captions:
    """The structured captions of one clip, as UltraVideo keeps them; an absent field is an empty string."""

    brief: str = ""
    detailed: str = ""
    theme: str = ""
    shot_type: str = ""
    summarized: str = ""
    background: str = ""
    style: str = ""
    camera_movement: str = ""
    lighting: str = ""
    atmosphere: str = ""


@dataclass(frozen=True)
class Clip:
    """A span of a source that lies in a file of its own: file time 0 is source time ``start_s``.

    ``id`` is free of dots and slashes; ``source_id`` is UltraVideo's ``url``. ``path`` is a path, a URL or a member
    of an archive, as ``data_prep.ingest.address`` writes it; ``content_id`` is what its store vouches for the
    content with, empty where the file must be read. Sizes and rate are 0, and ``end_s`` is ``start_s``, where
    nothing says.
    """

    id: str
    source_id: str
    path: str
    start_s: float
    end_s: float
    fps: float
    width_px: int
    height_px: int
    captions: Captions = Captions()
    licence: str = ""
    consent: Consent = "unknown"
    content_id: str = ""


@dataclass(frozen=True)
class Shot:
    """Frames ``[start, end)`` of a clip without a cut."""

    index: int
    start: int
    end: int


@dataclass(frozen=True)
class FaceTrack:
    """One face followed through one shot. N frames, of which those with ``embedded`` True carry an embedding.

    frames: int32[N] ascending; boxes_px: f32[N,4]; landmarks_px: f32[N,5,2] (eyes, nose, mouth corners, image
    left first); ovals_px: f32[N,P,2] outline of the visible face; scores: f32[N] detector confidence in [0,1],
    0 where the box is interpolated; norms: f32[N] embedding length before normalising, 0 where not embedded;
    sharpness: f32[N] variance of the Laplacian of the aligned 112-px crop, 0 where not embedded; yaw_deg,
    pitch_deg, roll_deg: f32[N], all 0 upright into the camera, positive towards image right, upwards, clockwise;
    embedded: bool[N]; embeddings: f32[N,D] unit rows, zeros where not embedded; crop_frames: int32[K] and crops:
    u8[K,112,112,3] RGB, aligned, the reference candidates.
    """

    id: str
    clip_id: str
    shot: int
    frames: I32
    boxes_px: F32
    landmarks_px: F32
    ovals_px: F32
    scores: F32
    norms: F32
    sharpness: F32
    yaw_deg: F32
    pitch_deg: F32
    roll_deg: F32
    embedded: npt.NDArray[np.bool_]
    embeddings: F32
    crop_frames: I32
    crops: U8

    def row(self, frame: int) -> int:
        """Position of a frame in the arrays; raises KeyError where the track does not see the frame."""
        at = int(np.searchsorted(self.frames, frame))
        if at == len(self.frames) or self.frames[at] != frame:
            raise KeyError(frame)
        return at

    @property
    def embedding(self) -> F32:
        """f32[D], the unit mean of the frame embeddings weighted by their norm (a blurred face counts less)."""
        weighted = (self.embeddings * self.norms[:, None]).sum(0)
        return np.asarray(weighted / max(float(np.linalg.norm(weighted)), 1e-9), np.float32)


@dataclass(frozen=True)
class FrameMeasures:
    """What the F analysed frames of a clip of S shots look like, f32[F] each, NaN where not measured.

    clipped: share of pixels above 250 or below 5; border: mean brightness, 0..255, of the darkest 3 % strip;
    colour: mean variance over red, green and blue; sharpness: variance of the Laplacian; motion_px: mean length of
    the optical flow from the frame before; text: share of the picture that text covers; stillest_px: f32[S] per
    shot, the mean flow of its stillest patch.
    """

    clipped: F32
    border: F32
    colour: F32
    sharpness: F32
    motion_px: F32
    text: F32
    stillest_px: F32


@dataclass(frozen=True)
class Window:
    """A candidate training window of one shot, already encoded, so that a clip is decoded once.

    frames: int32[T] analysed frames; mp4: the encoded video at the bucket's size; track_map: u8[T,H,W], 0 for
    nobody and k for ``tracks[k-1]``; tracks: ids of the tracks that the window sees.
    """

    index: int
    shot: int
    frames: I32
    mp4: bytes
    track_map: U8
    tracks: tuple[str, ...]


@dataclass(frozen=True)
class Decision:
    """One line of the ledger: an item's fate, the rule that decided, the number it had and the limit.

    ``item`` is a clip, shot, track, window or sample id and ``kind`` says which; ``error_class``, ``attempts``,
    ``detail`` (stderr tail or sentence) and ``replay`` (the command that tries again) belong to quarantine.
    """

    item: str
    kind: Literal["clip", "shot", "track", "window", "sample"]
    fate: Fate
    stage: str
    rule: str = ""
    value: str = ""
    limit: str = ""
    error_class: str = ""
    attempts: int = 1
    detail: str = ""
    replay: str = ""


@dataclass(frozen=True)
class AnalysedClip:
    """All that one decoding pass over a clip yields. width_px × height_px is the size of the analysed frames;
    times_s: f64[F] presentation time of each from the file's start; decoder (with version) and fingerprint (sha256)
    say what read what, medium what the file was: codec, size, rate, groups, sound; pictures: None where nothing was
    decoded."""

    clip: Clip
    width_px: int
    height_px: int
    times_s: F64
    shots: tuple[Shot, ...]
    tracks: tuple[FaceTrack, ...]
    windows: tuple[Window, ...]
    decisions: tuple[Decision, ...] = ()
    decoder: str = ""
    medium: str = ""
    fingerprint: str = ""
    pictures: FrameMeasures | None = None


@dataclass(frozen=True)
class Character:
    """One person across tracks, clips and sources; the id is stable under re-runs and added clips."""

    id: str
    track_ids: tuple[str, ...]


@dataclass(frozen=True)
class Calibration:
    """Same-person thresholds (cosine) in force, and what was measured with them on this corpus.

    threshold: within a source; corpus_threshold: between sources, at least as high; base_threshold: the pack's or
    the configured one, before the corpus raised it. false_accept: share of co-visible pairs at or above threshold;
    false_reject: share of far-apart same-track pairs below it; both NaN when there was no such pair. curve: cosine
    with both rates at it, over the range of what was measured.
    """

    pack: str
    threshold: float
    false_accept: float
    false_reject: float
    num_positive: int
    num_negative: int
    base_threshold: float
    corpus_threshold: float
    curve: tuple[tuple[float, float, float], ...] = ()


Json = dict[str, Any]


def digest(value: Json | list[object]) -> str:
    """sha256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
