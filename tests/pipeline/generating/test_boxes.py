"""Boxes over time against their own rule, written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from data_prep.records import InputError
from pipeline.families.contract import LatentGrid
from pipeline.generating.boxes import Key, box_at, paint, parse_boxes

MOVE = [{"frame": 2, "box": [0, 0, 0.5, 1]}, {"frame": 6, "box": [0.5, 0.5, 1, 1]}, {"frame": 7, "box": None}]


def test_sides_move_linearly_and_stay_before_and_after() -> None:
    keys = parse_boxes({"anna": MOVE[:2]}, ["anna"], 9)["anna"]
    assert box_at(keys, 0) == box_at(keys, 2) == (0, 0, 0.5, 1)
    assert box_at(keys, 3) == (0.125, 0.125, 0.625, 1)
    assert box_at(keys, 4) == (0.25, 0.25, 0.75, 1)
    assert box_at(keys, 6) == box_at(keys, 8) == (0.5, 0.5, 1, 1)


def test_who_is_away_is_not_there_until_the_next_key_frame() -> None:
    keys = (Key(0, None), Key(3, (0, 0, 1, 1)), Key(5, None))
    assert [box_at(keys, frame) is not None for frame in range(7)] == [False] * 3 + [True] * 2 + [False] * 2


def test_pixels_have_the_slot_of_the_cast_and_the_later_is_in_front() -> None:
    whole = [{"frame": 0, "box": [0, 0, 1, 1]}]
    boxes = parse_boxes({"anna": MOVE, "ben": whole}, ["ben", "anna"], 9)
    labels = paint(boxes, ["ben", "anna"], (9, 4, 8))
    assert labels.dtype == np.uint8 and labels.shape == (9, 4, 8)
    assert (labels[0, :, :4] == 2).all() and (labels[0, :, 4:] == 1).all() and (labels[8] == 1).all()
    assert (labels[6, 2:, 4:] == 2).all() and (labels[6] == 2).sum() == 8
    assert not paint({}, ["ben"], (1, 4, 8)).any()


def test_frames_are_grouped_as_the_causal_codec_groups_them() -> None:
    """Anna is there from source frame 5 on: latent frames 0 and 1 (frames 0 and 1..4) know nothing of her."""
    keys = [{"frame": 0, "box": None}, {"frame": 5, "box": [0, 0, 1, 1]}]
    labels = paint(parse_boxes({"anna": keys}, ["anna"], 9), ["anna"], (9, 16, 16))
    import torch

    cells = LatentGrid(4, 8, (1, 2, 2)).coverage(torch.from_numpy(labels)[None], 1)
    assert cells.mean((0, 1, 3, 4)).tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("read", "message"),
    [
        ([], "a list came"),
        ({"dora": MOVE}, "boxes of dora; the cast is anna"),
        ({"anna": []}, "give a list of key frames"),
        ({"anna": [{"frame": 9, "box": None}]}, "from 0 to 8"),
        ({"anna": [{"frame": 0, "box": [0, 0, 40, 40]}]}, "not pixels"),
        ({"anna": [{"frame": 0, "box": [0.5, 0, 0.5, 1]}]}, "left < right"),
        ({"anna": [{"frame": 0}]}, "has frame and box"),
        ({"anna": [MOVE[1], MOVE[0]]}, "they must rise"),
    ],
)
def test_wrong_boxes_are_named(read: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_boxes(read, ["anna"], 9)
