"""How much a face moves: the range of its pose and of its expression, so that a frozen face does not win.

Likeness to a reference is highest for a face that never moves. These two ranges are what such a face gives up.
Expression is read from a face mesh in two dimensions: the points of one face over time are laid onto their mean by
the affine map that fits the points which no expression moves (nose, corners of the eyes, temples), which takes out
place, size, roll and the foreshortening of a turn; what depth still adds is linear in the sines of yaw and pitch
(scaled orthographic projection) and is taken out by least squares. What is left is lips, chin, lids and brows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_prep.records import F32, F64

# Of MediaPipe's 468-point mesh. Steady: bridge and tip of the nose, its wings, corners of the eyes, temples.
STEADY = (6, 168, 1, 4, 129, 358, 33, 133, 362, 263, 127, 356)
MOUTH = (61, 291, 13, 14, 0, 17, 37, 267, 84, 314, 152)  # corners, lips inside and outside, chin
LIDS = (159, 145, 386, 374)
BROWS = (70, 105, 107, 300, 334, 336)
POINTS = STEADY + MOUTH + LIDS + BROWS
EYES = (STEADY.index(33), STEADY.index(263))  # outer corners, whose distance is the unit of length

MIN_FRAMES = 8  # fewer leave no degrees of freedom beside the three that the pose takes
TAILS = (5, 95)  # percentiles between which a range lies: one wrong frame is no movement


@dataclass(frozen=True)
class Liveliness:
    """Of N characters, NaN where seen in too few frames or not measured. yaw_range_deg, pitch_range_deg,
    roll_range_deg: f64[N], between the 5th and the 95th percentile over time; expression_range: f64[N], standard
    deviation over time of the points of expression, root mean square over them, in distances between the outer
    corners of the eyes; a still gives what the landmark model trembles by, some 0.01."""

    yaw_range_deg: F64
    pitch_range_deg: F64
    roll_range_deg: F64
    expression_range: F64


def pose_range_deg(poses_deg: F32) -> F64:
    """f64[3] of yaw, pitch and roll, f32[n,3] in degrees: from the 5th to the 95th percentile; NaN below two."""
    if len(poses_deg) < 2:
        return np.full(3, np.nan)
    low, high = np.percentile(poses_deg.astype(np.float64), TAILS, axis=0)
    return np.asarray(high - low, np.float64)


def expression_range(points_px: F32, poses_deg: F32) -> float:
    """Of one face in n frames: f32[n,K,2] points as POINTS orders them and f32[n,3] poses; see the module's head.
    NaN without a mesh or below MIN_FRAMES."""
    if len(points_px) < MIN_FRAMES or points_px.shape[1] != len(POINTS):
        return float("nan")
    laid = _laid_on_mean(points_px.astype(np.float64))
    moving = laid[:, len(STEADY) :].reshape(len(laid), -1)  # [n, 2·moving points]
    sines = np.sin(np.deg2rad(poses_deg[:, :2].astype(np.float64)))
    pose = np.column_stack([np.ones(len(sines)), sines])
    left = moving - pose @ np.linalg.lstsq(pose, moving, rcond=None)[0]
    freedom = len(laid) - pose.shape[1]
    return float(np.sqrt(2 * np.square(left).sum() / freedom / moving.shape[1]))


def _laid_on_mean(points: F64) -> F64:
    """f64[n,K,2] → the same in distances between the eyes, each frame mapped affinely so that its steady points
    lie on their mean over all frames."""
    steady = points[:, : len(STEADY)]
    centre = steady.mean(1, keepdims=True)
    unit = np.linalg.norm(steady[:, EYES[0]] - steady[:, EYES[1]], axis=1)[:, None, None]
    own, whole = (steady - centre) / unit, (points - centre) / unit
    angle = np.arctan2(*np.moveaxis(own[:, EYES[1]] - own[:, EYES[0]], -1, 0)[::-1])
    turn = np.stack(
        [np.stack([np.cos(angle), -np.sin(angle)], -1), np.stack([np.sin(angle), np.cos(angle)], -1)], 1
    )
    own, whole = own @ turn, whole @ turn  # row vectors: the eyes lie level
    target = own.mean(0)
    return np.stack(
        [all_ @ np.linalg.lstsq(few, target, rcond=None)[0] for few, all_ in zip(own, whole, strict=True)]
    )
