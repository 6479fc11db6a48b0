"""Where a face is, from its points: the outline that makes its mask, and the aligned crop.

Every pack gives the same shapes here, whatever landmarks it has: a 468-point mesh, a 106-point hull or five points.
"""

from __future__ import annotations

import cv2
import numpy as np

from data_prep.records import F32, F64, U8

OUTLINE_POINTS = 36
CROP_PX = 112

# The face oval of MediaPipe's 468-point mesh: from the top of the forehead clockwise in the image.
MESH_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
# Five points out of the mesh: each eye is the mean of its corners and lids. Aligning with these instead of the
# detector's five raised the lowest similarity of one person across photos from .41 to .52.
MESH_FIVE = ((33, 133, 159, 145), (362, 263, 386, 374), (1,), (61,), (291,))

# ArcFace's template: where the five points lie in a 112-pixel crop (insightface.utils.face_align.arcface_dst).
TEMPLATE_PX = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    np.float32,
)


def mesh_five(mesh_px: F32) -> F32:
    """f32[468,2] → f32[5,2]: eyes, nose, mouth corners, image left first."""
    return np.asarray([mesh_px[list(points)].mean(0) for points in MESH_FIVE], np.float32)


def crop_matrix(five_px: F32) -> F64:
    """f64[2,3]: the similarity transform that maps five points onto the template with the least squares error.

    With points as complex numbers, z ↦ a·z + b: a = Σ conj(z−z̄)(w−w̄) / Σ|z−z̄|² (Umeyama's solution in the plane).
    """
    z = five_px[:, 0].astype(np.float64) + 1j * five_px[:, 1]
    w = TEMPLATE_PX[:, 0].astype(np.float64) + 1j * TEMPLATE_PX[:, 1]
    a = np.vdot(z - z.mean(), w - w.mean()) / max(float((np.abs(z - z.mean()) ** 2).sum()), 1e-9)
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def in_crop(five_px: F32) -> F32:
    """f32[5,2] of an image → f32[5,2], where they are in the crop that is aligned by them, in its pixels."""
    matrix = crop_matrix(five_px)
    return np.asarray(five_px @ matrix[:, :2].T + matrix[:, 2], np.float32)


def aligned_crop(image: U8, five_px: F32) -> U8:
    """u8[H,W,3] → u8[112,112,3], black outside the image."""
    return np.asarray(cv2.warpAffine(image, crop_matrix(five_px), (CROP_PX, CROP_PX)), np.uint8)


def sharpness(crop: U8) -> float:
    """Variance of the Laplacian of the grey crop; below about 20 a face is too blurred to be a reference."""
    return float(cv2.Laplacian(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


def hull_outline(points_px: F32) -> F32:
    """The convex hull of any landmarks as f32[36,2], evenly spaced clockwise from its top."""
    hull = cv2.convexHull(points_px.astype(np.float32), clockwise=False)[:, 0].astype(np.float64)
    ring = np.roll(hull, -int(hull[:, 1].argmin()), axis=0)
    ring = np.concatenate([ring, ring[:1]])
    along = np.concatenate([[0.0], np.hypot(*np.diff(ring, axis=0).T).cumsum()])
    at = np.arange(OUTLINE_POINTS) * along[-1] / OUTLINE_POINTS
    return np.stack([np.interp(at, along, ring[:, k]) for k in (0, 1)], axis=1).astype(np.float32)


def ellipse_outline(five_px: F32) -> F32:
    """The face as an ellipse, f32[36,2] clockwise from its top, where a pack has nothing but five points.

    Its axes are those of the mesh oval of an average face drawn on the crop template, mapped back to the image.
    """
    angle = np.arange(OUTLINE_POINTS) * 2 * np.pi / OUTLINE_POINTS
    on_template = np.stack([56 + 38 * np.sin(angle), 64 - 56 * np.cos(angle)], axis=1)
    back = cv2.invertAffineTransform(crop_matrix(five_px))
    return np.asarray(on_template @ back[:, :2].T + back[:, 2], np.float32)
