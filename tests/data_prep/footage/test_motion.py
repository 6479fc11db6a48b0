"""Paths, placing and head turns: what the ground truth of the footage rests on."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from data_prep.footage.motion import Turn, affine, back_and_forth, pose_at, sway_at, turned, turned_points
from data_prep.footage.scenes import Pose, still


def test_a_take_plays_forwards_and_backwards() -> None:
    assert [back_and_forth(i, 3) for i in range(7)] == [0, 1, 2, 1, 0, 1, 2]
    assert [back_and_forth(i, 1) for i in range(3)] == [0, 0, 0]


def test_a_path_passes_through_its_poses_and_stays_between_them() -> None:
    path = (Pose(0.0, 0, 10, 100, -4), Pose(0.5, 50, 30, 120, 4), Pose(1.0, 20, 20, 110, 0))
    for pose in path:
        assert pose_at(path, pose.at) == pose
    xs = [pose_at(path, at).x for at in np.linspace(0, 0.5, 20)]
    assert xs == sorted(xs)
    assert pose_at(path, 0.25).x == pytest.approx(25)


def test_somebody_still_moves_but_little() -> None:
    xs = [pose_at(still(300, 200, 180), at).x for at in np.linspace(0, 1, 50)]
    assert 5 < max(xs) - min(xs) <= 24


def test_the_affine_puts_the_face_where_the_pose_says() -> None:
    centre = np.array([40, 70], np.float32)
    matrix = affine(centre, 50, Pose(0.0, 300, 200, 100, roll_deg=90))
    assert matrix @ [40, 70, 1] == pytest.approx([300, 200])
    assert matrix @ [40, 45, 1] == pytest.approx([350, 200])  # the top of the face, after a clockwise quarter


@pytest.mark.parametrize("point", [(100, 100), (80, 90), (125, 110), (100, 140), (20, 20)])
def test_points_move_with_the_pixels(point: tuple[int, int]) -> None:
    """Oracle: a dot is painted, the picture is turned, and the dot is looked for in it."""
    turn = Turn(np.array([100, 100], np.float32), 75, yaw_deg=14, nod_deg=-5)
    picture = np.zeros((200, 200, 4), np.uint8)
    cv2.circle(picture, point, 3, (255, 255, 255, 255), -1)
    dot = turned(picture, turn)[..., 3].astype(np.float64)
    ys, xs = np.mgrid[:200, :200]
    found = np.array([(dot * xs).sum(), (dot * ys).sum()]) / dot.sum()
    assert turned_points(np.array([point], np.float32), turn)[0] == pytest.approx(found, abs=0.35)


def test_a_sway_comes_back() -> None:
    centre = np.zeros(2, np.float32)
    yaws = [sway_at(12, at, centre, 100).yaw_deg for at in (0, 0.25, 0.5, 0.75, 1)]
    assert yaws == pytest.approx([0, 12, 0, -12, 0], abs=1e-6)
