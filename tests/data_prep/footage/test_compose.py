"""Composition and its truth, on rectangles whose areas are known by arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep.footage.backdrop import Scenery
from data_prep.footage.compose import Stage, people_of, render
from data_prep.footage.cutout import Cutout
from data_prep.footage.scenes import HEIGHT_PX, WIDTH_PX, Actor, Pose, Scene, Shot


def _square(colour: tuple[int, int, int]) -> Cutout:
    """A 100-px opaque square that is all face."""
    rgba = np.zeros((1, 100, 100, 4), np.uint8)
    rgba[0] = (*colour, 255)
    corners = [[0, 0], [99, 0], [99, 99], [0, 99]]
    return Cutout(rgba, np.array([[corners]], np.float32))


@pytest.fixture
def stage() -> Stage:
    grey = np.full((HEIGHT_PX, WIDTH_PX, 3), 128, np.uint8)
    cutouts = {"martin-1": _square((200, 0, 0)), "victor-1": _square((0, 200, 0))}
    return Stage(cutouts, {"office": Scenery((grey,), 0.0)}, np.zeros_like(grey))


def _scene(*actors: Actor, desk_px: int = 0) -> Scene:
    return Scene("made-up", "reel", 0.0, (Shot(1, "office", actors, desk_px),), "", "")


def _at(take: str, x: float, y: float) -> Actor:
    return Actor(take, (Pose(0, x, y, 99),))


def test_faces_are_where_they_were_placed(stage: Stage) -> None:
    (frame,) = render(_scene(_at("martin-1", 200, 200), _at("victor-1", 500, 300)), stage)
    assert frame.boxes_px[0] == pytest.approx([150.5, 150.5, 249.5, 249.5])
    assert frame.visibility == pytest.approx([1, 1], abs=0.03)
    assert tuple(frame.image[200, 200]) == (200, 0, 0)
    assert frame.labels[200, 200] == 1
    assert frame.labels[300, 500] == 2
    assert frame.labels[10, 10] == 0


def test_who_stands_in_front_covers(stage: Stage) -> None:
    """The front square hides the right half of the one behind it."""
    (frame,) = render(_scene(_at("martin-1", 200, 200), _at("victor-1", 250, 200)), stage)
    assert frame.visibility == pytest.approx([0.5, 1], abs=0.03)
    assert frame.labels[200, 220] == 2
    (frame,) = render(_scene(_at("martin-1", 200, 200), _at("victor-1", 200, 200)), stage)
    assert frame.visibility[0] == pytest.approx(0, abs=0.03)
    assert np.isfinite(frame.boxes_px[0]).all()


def test_the_frame_and_the_desk_cut(stage: Stage) -> None:
    (frame,) = render(_scene(_at("martin-1", 0, 200)), stage)
    assert frame.visibility[0] == pytest.approx(0.5, abs=0.03)
    (frame,) = render(_scene(_at("martin-1", 300, HEIGHT_PX - 100), desk_px=100), stage)
    assert frame.visibility[0] == pytest.approx(0.5, abs=0.03)
    assert not frame.labels[HEIGHT_PX - 100 :].any()


def test_absent_people_have_no_box(stage: Stage) -> None:
    scene = Scene(
        "made-up",
        "reel",
        0.0,
        (Shot(1, "office", (_at("martin-1", 200, 200),)), Shot(1, "office", (_at("victor-1", 200, 200),))),
        "",
        "",
    )
    first, second = render(scene, stage)
    assert people_of(scene) == ("Martin", "Victor")
    assert np.isnan(first.boxes_px[1]).all()
    assert np.isnan(second.boxes_px[0]).all()
    assert (first.visibility[1], second.visibility[0]) == (0, 0)
    assert second.labels.max() == 2
