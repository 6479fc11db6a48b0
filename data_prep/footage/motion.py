"""How things move in the demo footage: paths between poses, the affine of a pose, and the turn of a head.

The turn moves the pixels of a photograph as a rounded head turning about its centre would: the middle of the face
shifts, the rim stays. That gives two frames of one photograph different embeddings, as two frames of film have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.footage.scenes import Pose
from data_prep.records import F32, F64, U8

HEAD = 0.75  # half-height of the rounded head in face heights: hair and chin included
STEADY = 6  # fixed-point steps; each shrinks the error at least by half


@dataclass(frozen=True)
class Turn:
    """A head turn: centre f32[2] and radius in pixels of the picture, angles in degrees."""

    centre_px: F32
    radius_px: float
    yaw_deg: float
    nod_deg: float


def back_and_forth(frame: int, length: int) -> int:
    """Index into a take of ``length`` pictures that is played forwards and backwards in turn."""
    if length == 1:
        return 0
    at = frame % (2 * (length - 1))
    return min(at, 2 * (length - 1) - at)


def pose_at(path: Sequence[Pose], at: float) -> Pose:
    """The pose at a time in [0,1], eased between the poses of the path."""
    after = next((i for i, pose in enumerate(path) if pose.at >= at), len(path) - 1)
    if after == 0 or path[after].at <= at:
        return path[after]
    a, b = path[after - 1], path[after]
    u = (at - a.at) / (b.at - a.at)
    s = u * u * (3 - 2 * u)
    mixed = (p + s * (q - p) for p, q in zip(_numbers(a), _numbers(b), strict=True))
    return Pose(at, *mixed)


def _numbers(pose: Pose) -> tuple[float, float, float, float]:
    return pose.x, pose.y, pose.face_px, pose.roll_deg


def affine(centre_px: F32, face_px: float, pose: Pose) -> F64:
    """f64[2,3] from picture to frame pixels, which puts the face where the pose says."""
    angle, scale = np.deg2rad(pose.roll_deg), pose.face_px / face_px
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([linear, np.array([pose.x, pose.y]) - linear @ centre_px])


def sway_at(sway_deg: float, at: float, centre_px: F32, face_px: float) -> Turn:
    """The turn of a head that sways once to either side per unit of ``at``, nodding a third as much."""
    yaw = sway_deg * float(np.sin(2 * np.pi * at))
    nod = sway_deg / 3 * float(np.sin(4 * np.pi * at + 1))
    return Turn(centre_px, HEAD * face_px, yaw, nod)


def turned(rgba: U8, turn: Turn) -> U8:
    """u8[H,W,4] with the head turned; what comes in over the picture's border repeats the border."""
    height, width = rgba.shape[:2]
    left, top = (max(int(c - turn.radius_px), 0) for c in turn.centre_px)
    right, bottom = (
        min(int(c + turn.radius_px) + 1, n) for c, n in zip(turn.centre_px, (width, height), strict=True)
    )
    grid = np.stack(np.meshgrid(np.arange(left, right), np.arange(top, bottom)), -1).astype(np.float32)
    origin = grid - _shift(grid, turn)
    out = rgba.copy()
    out[top:bottom, left:right] = cv2.remap(
        rgba, origin[..., 0], origin[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return out


def turned_points(points_px: F32, turn: Turn) -> F32:
    """f32[K,2]: where points of the picture lie after the turn; solves p' = p + shift(p')."""
    moved = points_px
    for _ in range(STEADY):
        moved = points_px + _shift(moved, turn)
    return moved


def _shift(points_px: F32, turn: Turn) -> F32:
    """f32[...,2]: how far the surface that is seen at each point has come: depth times the sine of the angle.

    Depth is 1 - r², which keeps the map free of folds for angles up to 25 degrees.
    """
    away = (points_px - turn.centre_px) / turn.radius_px
    depth = turn.radius_px * np.maximum(0, 1 - away[..., 0] ** 2 - away[..., 1] ** 2)
    sines = np.sin(np.deg2rad([turn.yaw_deg, turn.nod_deg])).astype(np.float32)
    return np.asarray(depth[..., None] * sines, np.float32)
