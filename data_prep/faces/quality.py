"""How good a seen face is, in four numbers from 0 to 1 and their product's root: size, sharpness, front, clearness.

They rank; what is too bad to use at all is the limits' to say (``references.min_*``, ``link.min_norm``). Occlusion
is judged by the length of the embedding before it is normalised, which a recogniser shortens where it finds no face
to speak of: covered and cut faces are below ``min_norm``, whole ones well above (Meng et al. 2021, MagFace, train
for that; ours do it by themselves).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_prep.faces.geometry import CROP_PX
from data_prep.records import F32, F64, FaceTrack

SHARP = 100.0
"""Variance of a crop's Laplacian from which more sharpness makes no better face."""
CLEAR = 1.5
"""Times ``min_norm`` from which a longer embedding says no more: whole faces of the demo lie from 1.2 to 2.4."""


@dataclass(frozen=True)
class FaceQuality:
    """N faces, f32[N] each in [0,1]. size: shorter side over the 112 px that a recogniser sees; sharp: of the
    crop's Laplacian; front: cosine of yaw times cosine of pitch; clear: 0 for covered; overall: their geometric
    mean."""

    size: F32
    sharp: F32
    front: F32
    clear: F32

    @property
    def overall(self) -> F32:
        return np.asarray((self.size * self.sharp * self.front * self.clear) ** 0.25, np.float32)


def face_quality(
    size_px: F32, sharpness: F32, yaw_pitch_deg: F32, norms: F32, min_norm: float
) -> FaceQuality:
    """size_px, sharpness, norms: f32[N], of embedded faces; yaw_pitch_deg: f32[N,2]; min_norm: the pack's, 0 where
    it has none: nothing counts as covered."""
    clear = np.clip(norms / (CLEAR * min_norm), 0, 1) if min_norm > 0 else np.ones_like(norms)
    return FaceQuality(
        size=_unit(size_px / CROP_PX),
        sharp=_unit(sharpness / SHARP),
        front=_unit(np.cos(np.radians(yaw_pitch_deg)).clip(0).prod(-1)),
        clear=_unit(clear),
    )


def track_quality(track: FaceTrack, min_norm: float) -> FaceQuality:
    """Of the track's embedded frames, in order."""
    at = track.embedded
    size_px = (track.boxes_px[at, 2:] - track.boxes_px[at, :2]).min(-1)
    angles = np.stack([track.yaw_deg[at], track.pitch_deg[at]], -1)
    return face_quality(size_px, track.sharpness[at], angles, track.norms[at], min_norm)


def in_words(track: FaceTrack, min_norm: float) -> str:
    """The track's numbers for the ledger: frames, and of the embedded ones the median size and sharpness, the
    angles that they span, how many are covered and the quality of the best."""
    at = track.embedded
    size_px = np.median((track.boxes_px[at, 2:] - track.boxes_px[at, :2]).min(-1))
    spans = {"yaw": track.yaw_deg[at], "pitch": track.pitch_deg[at], "roll": track.roll_deg[at]}
    angles = ", ".join(f"{name} {low.min():.0f} to {low.max():.0f}" for name, low in spans.items())
    best = track_quality(track, min_norm).overall.max()
    return (
        f"{len(track.frames)} frames, {size_px:.0f} px, sharpness {np.median(track.sharpness[at]):.0f}, {angles}, "
        f"covered {int((track.norms[at] < min_norm).sum())} of {int(at.sum())}, best quality {best:.2f}"
    )


def _unit(values: F32 | F64) -> F32:
    return np.asarray(np.clip(values, 0, 1), np.float32)
