"""Label maps against areas known by formula."""

import numpy as np
import pytest

from data_prep.analysis.masks import back_to_front, checked_outline, draw, ellipse


@pytest.mark.parametrize("box", [(10.3, 5.7, 30.9, 32.1), (40, 10, 46, 18), (0.5, 0.5, 99.5, 79.5)])
def test_area_is_that_of_the_polygon(box):
    outline = ellipse(np.array(box, np.float32))
    x, y = outline.astype(np.float64).T
    shoelace = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    area = (draw([outline], 80, 100) == 1).sum()
    assert area == pytest.approx(shoelace, abs=0.5 * np.sqrt(shoelace) + 1)
    assert shoelace == pytest.approx(np.pi / 4 * (box[2] - box[0]) * (box[3] - box[1]), rel=0.01)


def test_a_pixel_belongs_to_the_outline_that_holds_its_centre():
    square = np.array([[2, 1], [5, 1], [5, 4], [2, 4]], np.float32)
    expected = np.zeros((6, 8), np.uint8)
    expected[1:4, 2:5] = 1
    np.testing.assert_array_equal(draw([square], 6, 8), expected)


def test_outlines_beyond_the_border_are_clipped():
    label = draw([ellipse(np.array([-10, -10, 10, 10], np.float32))], 20, 20)
    assert label[0, 0] == 1 and label[12, 12] == 0
    assert not draw([ellipse(np.array([50, 50, 60, 60], np.float32))], 20, 20).any()


def test_the_front_face_covers_the_others():
    outlines = [ellipse(np.array(b, np.float32)) for b in [(0, 0, 20, 20), (10, 0, 30, 20)]]
    assert draw(outlines, 20, 30, [0, 1])[10, 15] == 2
    assert draw(outlines, 20, 30, [1, 0])[10, 15] == 1


@pytest.mark.parametrize(
    ("boxes", "scores", "expected"),
    [
        ([(0, 0, 40, 40), (20, 0, 40, 20)], [0.7, 0.9], [1, 0]),  # the larger in front, though it scores less
        ([(0, 0, 20, 20), (10, 0, 31, 20)], [0.9, 0.7], [1, 0]),  # of one size: the surer in front
        ([(0, 0, 20, 20), (10, 0, 31, 20)], [0.7, 0.9], [0, 1]),
        ([], [], []),
    ],
)
def test_who_is_in_front(boxes, scores, expected):
    assert back_to_front(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32)) == expected


def test_a_lost_outline_becomes_the_ellipse_of_the_box():
    box = np.array([10, 10, 30, 40], np.float32)
    good = ellipse(np.array([12, 8, 29, 41], np.float32))
    assert checked_outline(good, box) is good
    for lost in (good + 40, good * np.float32("nan"), (good - 20) * 5):
        np.testing.assert_array_equal(checked_outline(lost, box), ellipse(box))
