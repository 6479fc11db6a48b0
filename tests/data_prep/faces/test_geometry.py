"""Outlines and alignment against insightface's own alignment and shapes with known answers."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from data_prep.faces import geometry
from data_prep.records import F32


def head(yaw_deg: float, roll_deg: float = 0.0) -> F32:
    """Five points of a head with eyes 63 apart and the nose tip 40.3 before them, seen from the front: f32[5,2]."""
    points = np.array([[-31.5, 0, 0], [31.5, 0, 0], [0, 45, 40.3], [-25, 75, 8], [25, 75, 8]])
    yaw, roll = np.radians(yaw_deg), np.radians(roll_deg)
    turned_x = points[:, 0] * np.cos(yaw) + points[:, 2] * np.sin(yaw)
    x = turned_x * np.cos(roll) - points[:, 1] * np.sin(roll)
    y = turned_x * np.sin(roll) + points[:, 1] * np.cos(roll)
    return np.stack([x + 200, y + 150], axis=1).astype(np.float32)


@pytest.mark.filterwarnings("ignore:`estimate`")
def test_the_transform_is_insightfaces() -> None:
    estimate_norm = pytest.importorskip("insightface.utils.face_align").estimate_norm
    rng = np.random.default_rng(0)
    for _ in range(20):
        points = head(float(rng.uniform(-40, 40)), float(rng.uniform(-30, 30)))
        points = (points + rng.normal(0, 3, points.shape)).astype(np.float32)
        assert np.abs(geometry.crop_matrix(points) - estimate_norm(points)).max() < 1e-3


def test_a_crop_puts_the_points_where_the_template_has_them() -> None:
    points = geometry.TEMPLATE_PX * 2 + 30
    image = np.zeros((300, 300, 3), np.uint8)
    for x, y in points:
        cv2.circle(image, (round(float(x)), round(float(y))), 4, (255, 255, 255), -1)
    crop = geometry.aligned_crop(image, points)
    assert crop.shape == (112, 112, 3)
    assert all(crop[round(float(y)), round(float(x))].min() > 200 for x, y in geometry.TEMPLATE_PX)


def test_every_outline_has_36_points_clockwise_from_the_top() -> None:
    rng = np.random.default_rng(0)
    cloud = (rng.normal(0, 40, (106, 2)) + 200).astype(np.float32)
    for outline in (geometry.hull_outline(cloud), geometry.ellipse_outline(head(0))):
        assert outline.shape == (36, 2)
        assert outline.dtype == np.float32
        area = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(outline, np.roll(outline, -1, 0), strict=True))
        assert area > 0  # with y downwards, clockwise in the picture
        assert outline[0, 1] <= outline[:, 1].min() + 1


def test_a_hull_is_resampled_evenly_and_loses_no_area() -> None:
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    circle = (np.stack([np.cos(angle), np.sin(angle)], 1) * 100 + 300).astype(np.float32)
    outline = geometry.hull_outline(circle)
    steps = np.linalg.norm(outline - np.roll(outline, -1, 0), axis=1)
    assert np.ptp(steps) < 0.5
    assert cv2.contourArea(outline) == pytest.approx(np.pi * 100**2, rel=0.01)


def test_blur_lowers_sharpness() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (112, 112, 3), np.uint8)
    assert geometry.sharpness(noise) > 10 * geometry.sharpness(cv2.GaussianBlur(noise, (0, 0), 2))
