"""A drawn picture: enlarged, marked where the faces are, untouched elsewhere."""

from __future__ import annotations

import numpy as np

from data_prep.faces.analyser import SeenFace
from data_prep.faces.drawing import PALETTE, DrawnFace, draw_faces
from data_prep.faces.geometry import ellipse_outline


def test_faces_are_marked_and_the_rest_is_left_alone() -> None:
    image = np.full((120, 160, 3), 90, np.uint8)
    five = np.array([[65, 45], [85, 45], [75, 57], [67, 68], [83, 68]], np.float32)
    face = SeenFace(np.array([55, 25, 95, 80], np.float32), five, 0.9)
    drawn = draw_faces(image, [DrawnFace(face, ellipse_outline(five), ("A", "score 0.90"))])
    assert drawn.shape == (720, 960, 3)
    assert (drawn[:, :250] == 90).all()  # nothing left of the face
    inside = drawn[53 * 6, 75 * 6].astype(int)  # skin, under the mask
    assert 0 < np.abs(inside - 90).max() < np.abs(np.array(PALETTE[0]) - 90).max()
    assert np.abs(drawn[25 * 6, 57 * 6].astype(int) - PALETTE[0]).max() < 40  # a corner of the box


def test_no_faces_is_the_same_picture() -> None:
    image = np.random.default_rng(0).integers(0, 255, (600, 960, 3), np.uint8)
    assert np.array_equal(draw_faces(image, []), image)
