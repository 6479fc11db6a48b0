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
from data_prep.records import F32, F64

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


def _unit(values: F32 | F64) -> F32:
    return np.asarray(np.clip(values, 0, 1), np.float32)
