"""Which way a face looks, in degrees: yaw, pitch and roll from its points in the picture.

The points are fitted to those of one average face in space (MediaPipe's canonical face, Apache-2.0, in centimetres)
under scaled orthographic projection, as POSIT's first step (DeMenthon & Davis 1995): the 2 × 3 matrix with the
least squares error, then the nearest one with orthogonal rows of one length. What is left of perspective, and of a
face that is not the average one, costs some degrees: angles are good to compare and to spread, not to survey.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_prep.records import F32, F64

# Points of the 468-point mesh that neither jaw nor lids move: bridge and tip of the nose, its wings, the corners of
# the eyes and of the mouth, the temples. x to image right, y up, z towards the camera, for a face seen from the
# front. Without the temples eight people who look into the camera are 13 degrees down on average, with them 7.5.
MESH_POINTS: dict[int, tuple[float, float, float]] = {
    6: (0.0, 2.473255, 5.788627),
    168: (0.0, 3.271027, 5.236015),
    1: (0.0, -1.126865, 7.475604),
    4: (0.0, -0.463170, 7.586580),
    129: (-1.785794, -0.978284, 4.850470),
    358: (1.785794, -0.978284, 4.850470),
    33: (-4.445859, 2.663991, 3.173422),
    133: (-1.856432, 2.585245, 3.757904),
    362: (1.856432, 2.585245, 3.757904),
    263: (4.445859, 2.663991, 3.173422),
    61: (-2.456206, -4.342621, 4.283884),
    291: (2.456206, -4.342621, 4.283884),
    127: (-7.743095, 2.364999, -2.005167),
    356: (7.743095, 2.364999, -2.005167),
}
# The five points of a detector on the same face; an eye is the mean of its corners and lids.
FIVE_POINTS = (
    (-3.164166, 2.626909, 3.646001),
    (3.164166, 2.626909, 3.646001),
    (0.0, -1.126865, 7.475604),
    (-2.456206, -4.342621, 4.283884),
    (2.456206, -4.342621, 4.283884),
)


@dataclass(frozen=True)
class Pose:
    """All zero: upright and into the camera. yaw_deg: positive towards image right; pitch_deg: positive upwards;
    roll_deg: positive clockwise in the picture; each in (-180, 180], pitch in [-90, 90]."""

    yaw_deg: float
    pitch_deg: float
    roll_deg: float


def pose_of_five(five_px: F32) -> Pose:
    """From f32[5,2]: eyes, nose, mouth corners, image left first."""
    return _pose(five_px, _FIVE)


def pose_of_mesh(mesh_px: F32) -> Pose:
    """From f32[468,2], which sees a turn better than five points do."""
    return _pose(mesh_px[_MESH_AT], _MESH)


class _Shape:
    """Points in space about their mean, f64[N,3] with y down and z away from the camera, ready to be fitted to."""

    def __init__(self, points: list[tuple[float, float, float]]) -> None:
        flipped = np.array(points) * (1.0, -1.0, -1.0)
        self.fit: F64 = np.linalg.pinv(flipped - flipped.mean(0))  # f64[3,N]


_FIVE = _Shape(list(FIVE_POINTS))
_MESH = _Shape(list(MESH_POINTS.values()))
_MESH_AT = list(MESH_POINTS)


def _pose(points_px: F32, shape: _Shape) -> Pose:
    seen = points_px.astype(np.float64)
    left, _, right = np.linalg.svd((shape.fit @ (seen - seen.mean(0))).T, full_matrices=False)
    first, second = left @ right
    turn = np.stack([first, second, np.cross(first, second)])  # rotation from the face's axes to the camera's
    x, y, z = -turn[:, 2]  # where the face looks; the camera is at negative z
    yaw, pitch = np.arctan2(x, -z), np.arcsin(np.clip(-y, -1.0, 1.0))
    across = np.array([np.cos(yaw), 0.0, np.sin(yaw)])  # where its x axis would point without roll
    roll = np.arctan2(turn[:, 0] @ np.cross(turn[:, 2], across), turn[:, 0] @ across)
    return Pose(*(float(np.degrees(angle)) for angle in (yaw, pitch, roll)))
