"""Yaw, pitch and roll against rotations by scipy, and against photographs whose head is turned by a known angle."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_prep.faces import FaceAnalyser, analyser_for
from data_prep.faces.pose import FIVE_POINTS, MESH_POINTS, Pose, pose_of_five, pose_of_mesh
from data_prep.records import F32

ANGLES = [(0, 0, 0), (30, 0, 0), (0, 20, 0), (0, 0, -15), (-40, 25, -30), (60, -30, 45), (10, 5, 170)]


def projected(points: np.ndarray, yaw: float, pitch: float, roll: float) -> F32:
    """f32[N,2] pixels of a face that is first tilted, then raised, then turned; scipy: y down, z away."""
    turn = Rotation.from_euler("YXZ", [-yaw, -pitch, roll], degrees=True)
    return (turn.apply(points * (1, -1, -1))[:, :2] * 9 + (310, 140)).astype(np.float32)


def angles(pose: Pose) -> tuple[float, float, float]:
    return pose.yaw_deg, pose.pitch_deg, pose.roll_deg


@pytest.mark.parametrize("turn", ANGLES)
def test_the_angles_of_a_rotated_average_face(turn: tuple[float, float, float]) -> None:
    assert angles(pose_of_five(projected(np.array(FIVE_POINTS), *turn))) == pytest.approx(turn, abs=1e-3)
    mesh = np.zeros((468, 3))
    mesh[list(MESH_POINTS)] = list(MESH_POINTS.values())
    assert angles(pose_of_mesh(projected(mesh, *turn))) == pytest.approx(turn, abs=1e-3)


def test_a_jittering_detector_moves_the_angles_by_a_few_degrees() -> None:
    """Half a pixel of noise on a face of about 100 px."""
    rng = np.random.default_rng(0)
    points = projected(np.array(FIVE_POINTS), 20, -10, 5)
    found = [angles(pose_of_five(points + rng.normal(0, 0.5, (5, 2)).astype(np.float32))) for _ in range(200)]
    assert np.abs(np.array(found) - (20, -10, 5)).mean(0) == pytest.approx((0, 0, 0), abs=1.5)


@pytest.fixture(scope="module")
def analyser(face_home: object) -> FaceAnalyser:
    return analyser_for("embedded", (256, 256))


def test_a_photograph_that_is_turned_and_tilted(analyser: FaceAnalyser) -> None:
    """Looking right, up and clockwise is positive, and the other two angles hardly change.

    The turn moves pixels as a ball's surface does, which has no nose: half of it arrives.
    """
    skimage_data = pytest.importorskip("skimage.data")
    from data_prep.footage.motion import Turn, turned

    image = np.ascontiguousarray(skimage_data.astronaut()[:320, 60:380])
    rgba = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    face = analyser.detect(image)[0]
    centre, radius = (face.box_px[:2] + face.box_px[2:]) / 2, 0.75 * float(face.box_px[3] - face.box_px[1])

    def pose(yaw: float, nod: float, roll: float) -> np.ndarray:
        seen = turned(rgba, Turn(centre, radius, yaw, nod))[..., :3]
        around = cv2.getRotationMatrix2D(tuple(map(float, centre)), -roll, 1)
        seen = np.ascontiguousarray(cv2.warpAffine(seen, around, image.shape[1::-1]))
        return np.array(angles(analyser.measure(seen, analyser.detect(seen)[0]).pose))

    yawed, raised, tilted = (pose(*a) - pose(*b) for a, b in [
        ((20, 0, 0), (-20, 0, 0)), ((0, -12, 0), (0, 12, 0)), ((0, 0, 20), (0, 0, -20)),
    ])  # fmt: skip
    assert yawed[0] > 12 and np.abs(yawed[1:]).max() < yawed[0] / 2
    assert raised[1] > 7 and np.abs(raised[[0, 2]]).max() < raised[1] / 2
    assert tilted[2] > 25 and np.abs(tilted[:2]).max() < tilted[2] / 2
