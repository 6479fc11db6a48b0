"""Pose and expression ranges on a head in space whose turn and mouth are known."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep.records import F32
from pipeline.judging.liveliness import MIN_FRAMES, MOUTH, POINTS, STEADY, expression_range, pose_range_deg

FRAMES = 40


def head() -> np.ndarray:
    """f64[K,3] in eye distances: points of POINTS on a rounded head."""
    generator = np.random.default_rng(0)
    flat = generator.uniform(-0.7, 0.7, (len(POINTS), 2))
    flat[0], flat[1] = (0, 0.2), (0, 0.3)
    flat[list(POINTS).index(33)], flat[list(POINTS).index(263)] = (-0.5, 0.2), (0.5, 0.2)
    return np.column_stack([flat, 0.6 - 0.5 * (flat**2).sum(1)])


def film(yaw_deg: float, mouth: float, jitter: float = 0.0) -> tuple[F32, F32]:
    """points_px f32[T,K,2] and poses f32[T,3] of a head that turns to and fro by ``yaw_deg``, moves and comes
    nearer, and whose mouth points go up and down by ``mouth`` eye distances."""
    time = np.arange(FRAMES) / FRAMES
    yaw = yaw_deg * np.sin(2 * np.pi * time)
    generator = np.random.default_rng(1)
    points = []
    for t in range(FRAMES):
        shape = head()
        shape[len(STEADY) : len(STEADY) + len(MOUTH), 1] += mouth * np.sin(6 * np.pi * time[t] + 0.3)
        angle = np.deg2rad(yaw[t])
        across = shape[:, 0] * np.cos(angle) + shape[:, 2] * np.sin(angle)
        seen = np.column_stack([across, shape[:, 1]]) + generator.normal(0, jitter, (len(shape), 2))
        points.append(seen * (50 + 20 * time[t]) + (100 + 300 * time[t], 200))
    poses = np.column_stack([yaw, np.zeros(FRAMES), np.zeros(FRAMES)])
    return np.asarray(points, np.float32), poses.astype(np.float32)


def test_a_turn_that_moves_comes_nearer_and_says_nothing_is_no_expression() -> None:
    assert expression_range(*film(yaw_deg=25, mouth=0)) < 0.012
    assert expression_range(*film(yaw_deg=0, mouth=0)) < 1e-4


@pytest.mark.parametrize("yaw_deg", [0.0, 20.0])
def test_a_mouth_that_moves_is_as_much_as_it_moves(yaw_deg: float) -> None:
    """One of two coordinates of 11 in 21 points moves by 0.1 sin: root mean square 0.1/√2 · √(11/21)."""
    moving = len(POINTS) - len(STEADY)
    expected = 0.1 / np.sqrt(2) * np.sqrt(len(MOUTH) / moving)
    assert expression_range(*film(yaw_deg, mouth=0.1)) == pytest.approx(expected, rel=0.12)


def test_trembling_is_what_a_still_has() -> None:
    assert expression_range(*film(0, 0, jitter=0.005)) < 0.02


def test_too_few_frames_or_no_mesh_is_nan() -> None:
    points, poses = film(10, 0.1)
    assert np.isnan(expression_range(points[: MIN_FRAMES - 1], poses[: MIN_FRAMES - 1]))
    assert np.isnan(expression_range(points[:, :0], poses))


def test_pose_range_is_that_of_the_turn_whatever_one_frame_says() -> None:
    poses = np.zeros((100, 3), np.float32)
    poses[:, 0] = np.linspace(-20, 20, 100)
    poses[50, 0] = 170
    assert pose_range_deg(poses)[0] == pytest.approx(36, abs=1)
    assert pose_range_deg(poses)[1] == 0
    assert np.isnan(pose_range_deg(poses[:1])).all()
