"""What is shown to a captioner, and which answers are taken."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from data_prep.captioning.questions import SHORT_SIDE_PX, Answer, UselessError, checked, picture
from data_prep.records import Captions
from data_prep.shards import CastMember, SampleNote

Boxes = tuple[tuple[float, float, float, float] | None, ...]
GOOD: dict[str, Any] = {
    "people": {"1": "a tall man.", "2": " a\n woman "},
    "scene": "<person-2> sees <person-1>.",
}


def note(*boxes: Boxes) -> SampleNote:
    return SampleNote(
        key="k",
        clip_id="c",
        source_id="s",
        shot=0,
        window=0,
        start_s=0,
        end_s=1,
        frames=(0, 1, 2),
        frame_times_s=(0, 0.5, 1),
        fps=2,
        width_px=160,
        height_px=96,
        cast=tuple(CastMember(slot, "x", "") for slot in range(1, len(boxes) + 1)),
        references=(),
        boxes_px=boxes,
        captions=Captions(),
        guard_gap_s=1,
    )


def test_the_picture_is_the_frame_with_most_of_the_cast_and_boxes_are_where_the_faces_are() -> None:
    video = np.stack([np.full((96, 160, 3), value, np.uint8) for value in (0, 100, 200)])
    left, right = (10.0, 40.0, 50.0, 80.0), (100.0, 40.0, 140.0, 80.0)
    image = cv2.imdecode(
        np.frombuffer(picture(video, note((left, None, left), (None, None, right))), np.uint8),
        cv2.IMREAD_COLOR,
    )
    assert image is not None and image.shape == (SHORT_SIDE_PX, round(160 * SHORT_SIDE_PX / 96), 3)
    drawn = np.abs(image.astype(int) - 200).max(axis=2) > 50
    rows, columns = np.nonzero(drawn)
    scale = SHORT_SIDE_PX / 96
    assert columns.min() == pytest.approx(10 * scale, abs=4) and columns.max() == pytest.approx(
        140 * scale, abs=4
    )
    assert rows.max() == pytest.approx(80 * scale, abs=4)
    assert not drawn[:, round(60 * scale) : round(95 * scale)].any()


def test_an_answer_is_tidied() -> None:
    assert checked(GOOD, 2) == Answer(("a tall man", "a woman"), "<person-2> sees <person-1>")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([], "no object with people and scene"),
        ({"scene": "x"}, "no object with people"),
        ({**GOOD, "people": {"1": "a man"}}, r"people\.2 is no text"),
        ({**GOOD, "people": {"1": "a man", "2": "x" * 700}}, r"people\.2 has 700 characters"),
        ({**GOOD, "scene": " "}, "scene is no text"),
        ({**GOOD, "scene": "<person-3> waves"}, "scene names <person-3>, the cast has 2"),
    ],
)
def test_what_is_no_answer(found: Any, message: str) -> None:
    with pytest.raises(UselessError, match=message):
        checked(found, 2)
