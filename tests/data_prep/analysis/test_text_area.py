"""How much of a picture is text, on maps and pictures with a known share of it."""

import cv2
import numpy as np
import pytest

from data_prep.analysis import text_area
from data_prep.records import InputError


def test_regions_grow_to_their_rim_and_weak_ones_do_not_count():
    """A line of 100×10 marked pixels grows by 1.6·area/circumference on each side."""
    chances = np.zeros((200, 400), np.float32)
    chances[50:60, 100:200] = 0.9
    chances[150:160, 100:200] = 0.4  # above the pixel's limit, below the region's
    chances[5, 5] = 1.0
    grown = 1.6 * 1000 / 220
    expected = (100 + 2 * grown) * (10 + 2 * grown) / chances.size
    assert text_area.area_of(chances) == pytest.approx(expected, rel=0.1)
    assert text_area.area_of(np.zeros((32, 32), np.float32)) == 0


def test_no_detector_is_asked_for():
    assert text_area.text_detector("") is None


def test_a_detector_that_is_not_installed_says_what_to_do(monkeypatch):
    monkeypatch.setattr(text_area, "PACKAGE", "no_such_package")
    with pytest.raises(
        InputError, match=r"quality.text_detector: came 'rapidocr'.*pip install rapidocr-onnxruntime"
    ):
        text_area.require("rapidocr")
    text_area.require("")


def test_a_subtitle_is_found_where_it_is_and_a_face_is_none():
    pytest.importorskip("rapidocr_onnxruntime")
    skimage_data = pytest.importorskip("skimage.data")
    detect = text_area.text_detector("rapidocr")
    assert detect is not None
    plain = np.ascontiguousarray(skimage_data.astronaut()[:, ::-1])[:300, :300]
    assert detect(plain) < 0.005
    (width, height), base = cv2.getTextSize("and then she said no", cv2.FONT_HERSHEY_SIMPLEX, 0.7, 2)
    titled = plain.copy()
    cv2.putText(titled, "and then she said no", (20, 280), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255), 2)
    share = width * (height + base) / (300 * 300)
    assert 0.7 * share < detect(titled) < 2.0 * share
