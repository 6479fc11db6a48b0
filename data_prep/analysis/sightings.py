"""What was seen of one face, frame by frame, until its shot ends and it becomes a FaceTrack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_prep.faces.pose import Pose
from data_prep.records import F32, I32, U8, FaceTrack

MAX_CROPS = 12
"""Reference candidates of a track: a window takes at most five, and some lie too near to it."""

THIN_AT = 48
"""Crops held before they are thinned to half: 1.8 MB a track, whatever the length of the shot."""

YAW_SPREAD_DEG = 45.0
"""A turn of the head that counts as much as the whole track's length when crops are spread."""


UPRIGHT = Pose(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Crop:
    """A reference candidate: where it is from and how good. image: u8[112,112,3] RGB, aligned."""

    frame: int
    image: U8
    yaw_deg: float
    quality: float


@dataclass(frozen=True)
class Sighting:
    """One detected face in one frame.

    box_px: f32[4]; landmarks_px: f32[5,2]; score in [0,1]; outline_px: f32[P,2], None where it was not measured;
    pose: where measured; embedding: f32[D] unit, None where not embedded; norm, sharpness: of the embedded crop, 0
    where not embedded; crop: set where this sighting may serve as a reference.
    """

    frame: int
    box_px: F32
    landmarks_px: F32
    score: float
    outline_px: F32 | None = None
    pose: Pose = UPRIGHT
    embedding: F32 | None = None
    norm: float = 0.0
    sharpness: float = 0.0
    crop: Crop | None = None


class Sightings:
    """The growing list of one track."""

    def __init__(self) -> None:
        self._seen: list[Sighting] = []
        self._crops: list[Crop] = []

    def frames(self, looked: I32) -> I32:
        """int32[N] the frames that the track has a row for: where it was seen, and between two successive looks at
        which it was. ``looked``: the frames at which faces were looked for, ascending; no gap is made up."""
        at = np.array([s.frame for s in self._seen], np.int32)
        place = np.searchsorted(looked, at)
        inside = [
            np.arange(a + 1, b) for a, b, gap in zip(at, at[1:], np.diff(place), strict=False) if gap == 1
        ]
        return np.sort(np.concatenate([at, *inside])).astype(np.int32)

    @property
    def is_embedded(self) -> bool:
        """Whether any sighting is measured and embedded, without which there is no track."""
        return any(s.embedding is not None and s.outline_px is not None for s in self._seen)

    def add(self, sighting: Sighting) -> None:
        self._seen.append(sighting)
        if sighting.crop is not None:
            self._crops.append(sighting.crop)
            if len(self._crops) > THIN_AT:
                self._crops = spread(self._crops, THIN_AT // 2)

    def extend(self, later: Sightings) -> None:
        """Appends another track that turned out to be the same face; its frames come after all of these."""
        for sighting in later._seen:
            self.add(sighting)

    def to_track(self, track_id: str, clip_id: str, shot: int, looked: I32) -> FaceTrack:
        """The track with a row for every one of ``frames``."""
        seen = self._seen
        at = np.array([s.frame for s in seen], np.int32)
        boxes = np.stack([s.box_px for s in seen]).astype(np.float32)
        measured = np.array([s.outline_px is not None for s in seen])
        shapes = np.stack([_relative(s.outline_px, s.box_px) for s in seen if s.outline_px is not None])
        frames = self.frames(looked)
        rows = np.searchsorted(frames, at)
        yaw, pitch, roll = _between(frames, at[measured], _angles(seen)).T
        boxes_all = _between(frames, at, boxes)
        crops = spread(self._crops, MAX_CROPS)
        return FaceTrack(
            id=track_id,
            clip_id=clip_id,
            shot=shot,
            frames=frames,
            boxes_px=boxes_all,
            landmarks_px=_between(frames, at, np.stack([s.landmarks_px for s in seen])),
            ovals_px=_absolute(_between(frames, at[measured], shapes), boxes_all),
            scores=_at(rows, len(frames), [s.score for s in seen]),
            norms=_at(rows, len(frames), [s.norm for s in seen]),
            sharpness=_at(rows, len(frames), [s.sharpness for s in seen]),
            yaw_deg=yaw.copy(),
            pitch_deg=pitch.copy(),
            roll_deg=roll.copy(),
            embedded=_at(rows, len(frames), [float(s.embedding is not None) for s in seen]) > 0,
            embeddings=_embeddings(seen, rows, len(frames)),
            crop_frames=np.array([c.frame for c in crops], np.int32),
            crops=np.stack([c.image for c in crops]) if crops else np.zeros((0, 112, 112, 3), np.uint8),
        )


def spread(crops: Sequence[Crop], most: int) -> list[Crop]:
    """At most ``most`` crops in order of time: the best one, then always the one farthest from those taken, by
    time (in track lengths) and yaw (in 45°), its distance weighted by its quality."""
    if len(crops) <= most:
        return list(crops)
    frame = np.array([c.frame for c in crops], np.float64)
    place = np.stack([frame / max(np.ptp(frame), 1.0), [c.yaw_deg / YAW_SPREAD_DEG for c in crops]], 1)
    quality = np.array([c.quality for c in crops], np.float64)
    quality = 0.5 + 0.5 * quality / max(quality.max(), 1e-9)
    taken = [int(np.argmax(quality))]
    distance = np.full(len(crops), np.inf)
    while len(taken) < most:
        distance = np.minimum(distance, np.linalg.norm(place - place[taken[-1]], axis=1))
        distance[taken] = -1.0
        taken.append(int(np.argmax(distance * quality)))
    return [crops[i] for i in sorted(taken)]


def _between(frames: I32, at: I32, values: F32) -> F32:
    """Linear interpolation of f32[M,...] given at ascending frames ``at``; constant beyond the ends."""
    right = np.clip(np.searchsorted(at, frames), 0, len(at) - 1)
    left = np.maximum(right - 1, 0)
    span = np.maximum(at[right] - at[left], 1)
    weight = np.clip((frames - at[left]) / span, 0.0, 1.0).reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray(values[left] * (1 - weight) + values[right] * weight, np.float32)


def _at(rows: npt.NDArray[np.int64], num_rows: int, values: Sequence[float]) -> F32:
    """f32[num_rows] with the values at the rows of the sightings and 0 between."""
    out = np.zeros(num_rows, np.float32)
    out[rows] = values
    return out


def _angles(seen: Sequence[Sighting]) -> F32:
    """f32[M,3] yaw, pitch and roll of the measured; a head upside down is no face, so none crosses 180 degrees."""
    poses = [s.pose for s in seen if s.outline_px is not None]
    return np.array([(p.yaw_deg, p.pitch_deg, p.roll_deg) for p in poses], np.float32)


def _embeddings(seen: Sequence[Sighting], rows: npt.NDArray[np.int64], num_rows: int) -> F32:
    width = next(len(s.embedding) for s in seen if s.embedding is not None)
    out = np.zeros((num_rows, width), np.float32)
    for row, sighting in zip(rows, seen, strict=True):
        if sighting.embedding is not None:
            out[row] = sighting.embedding
    return out


def _relative(outline_px: F32, box_px: F32) -> F32:
    """f32[P,2] in units of the box, so that an outline can move with it."""
    return np.asarray((outline_px - box_px[:2]) / np.maximum(box_px[2:] - box_px[:2], 1e-6), np.float32)


def _absolute(shapes: F32, boxes_px: F32) -> F32:
    low, high = boxes_px[:, None, :2], boxes_px[:, None, 2:]
    return np.asarray(low + shapes * (high - low), np.float32)
