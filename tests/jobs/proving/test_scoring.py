"""The scoring on real composed clips taken for generated ones: all right, all swapped, one missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_prep.footage import prepare_stage
from data_prep.footage.compose import render
from data_prep.footage.scenes import Actor, Pose, Scene, Shot
from data_prep.records import U8
from jobs.proving.casting import Asked
from jobs.proving.scoring import Figures, VideoVerdict, confusion, figures, places, verdict_of
from pipeline.judging.galleries import Gallery, gallery
from pipeline.judging.sight import SeenFrame, see

PEOPLE = ("Bruno", "Nora", "Toby")
PACK = "embedded_alt"


def _scene(*takes: str) -> Scene:
    """Two frames of people at the proof's places."""
    actors = tuple(
        Actor(take, (Pose(0, x, 280, 260), Pose(1, x + 6, 280, 260)))
        for take, x in zip(takes, (275, 685), strict=False)
    )
    return Scene("-".join(takes), "reel", 0.0, (Shot(2, "office", actors),), "", "")


@pytest.fixture(scope="module")
def films(face_home: Path) -> dict[str, list[U8]]:
    """Frames at the size of the proof's videos: pairs, everybody alone as in a photograph, and one who is alone."""
    import cv2

    pairs = [("bruno-1", "toby-1"), ("toby-1", "bruno-1"), ("bruno-1", "nora-1")]
    scenes = [_scene(*pair) for pair in pairs] + [_scene(f"{name.lower()}-3") for name in PEOPLE]
    stage = prepare_stage(tuple(scenes), face_home, lambda *_: None)
    made = {}
    for scene in scenes:
        frames = [frame.image[30:510] for frame in render(scene, stage)]
        made[scene.clip_id] = [
            np.asarray(cv2.resize(frame, (128, 64), interpolation=cv2.INTER_AREA), np.uint8)
            for frame in frames
        ]
        if "-3" in scene.clip_id:
            made[scene.clip_id] = [np.asarray(frame, np.uint8) for frame in frames]
    return made


@pytest.fixture(scope="module")
def seen(films: dict[str, list[U8]]) -> dict[str, list[SeenFrame]]:
    from data_prep.faces import analyser_for

    return {name: see(frames, analyser_for("embedded"), (PACK,)) for name, frames in films.items()}


@pytest.fixture(scope="module")
def galleries(seen: dict[str, list[SeenFrame]]) -> tuple[Gallery, ...]:
    """References from mirrored photographs at full size."""
    crops = {name: np.stack([f.crops[0] for f in seen[f"{name.lower()}-3"]]) for name in PEOPLE}
    return (gallery(PACK, crops),)


def _figures(videos: list[VideoVerdict]) -> Figures:
    return figures(videos, PACK, PEOPLE)


ASKED = Asked("pairs", ("Bruno", "Toby"), "office", (0, 1))


def test_a_perfect_generator_is_always_right(
    seen: dict[str, list[SeenFrame]], galleries: tuple[Gallery, ...]
) -> None:
    videos = [
        verdict_of(seen["bruno-1-toby-1"], galleries, ASKED, 0),
        verdict_of(
            seen["toby-1-bruno-1"], galleries, replace(ASKED, cast=("Toby", "Bruno"), slots=(1, 0)), 0
        ),
    ]
    found = _figures(videos)
    assert (found.right.mean, found.recognised.mean, found.coverage.mean, found.swap.mean) == (1, 1, 1, 0)
    assert min(found.margin_of.values()) > 0.2
    assert confusion(videos, PACK, PEOPLE)[[0, 2]].tolist() == [[1, 0, 0, 0], [0, 0, 1, 0]]
    assert found.steadiness.mean > 0.8


def test_a_generator_that_swaps_is_always_swapped(
    seen: dict[str, list[SeenFrame]], galleries: tuple[Gallery, ...]
) -> None:
    videos = [verdict_of(seen["toby-1-bruno-1"], galleries, ASKED, 0)]
    found = _figures(videos)
    assert (found.right.mean, found.swap.mean, found.coverage.mean) == (0, 1, 1)
    assert max(found.margin_of.values()) < -0.2
    assert confusion(videos, PACK, PEOPLE)[[0, 2]].tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]


def test_somebody_of_nobodys_cast_is_wrong_and_no_swap(
    seen: dict[str, list[SeenFrame]], galleries: tuple[Gallery, ...]
) -> None:
    """Nora stands where Toby was asked for."""
    videos = [verdict_of(seen["bruno-1-nora-1"], galleries, ASKED, 0)]
    assert _figures(videos).right.mean == 0.5
    assert confusion(videos, PACK, PEOPLE)[2].tolist() == [0, 1, 0, 0]


def test_a_missing_face_is_wrong_and_nothing_else(
    seen: dict[str, list[SeenFrame]], galleries: tuple[Gallery, ...]
) -> None:
    frames = [_left_alone(frame) for frame in seen["bruno-1-toby-1"]]
    videos = [verdict_of(frames, galleries, ASKED, 0)]
    found = _figures(videos)
    assert (found.right.mean, found.coverage.mean, found.swap.mean) == (0.5, 0.5, 0)
    assert confusion(videos, PACK, PEOPLE)[2].tolist() == [0, 0, 0, 1]
    assert np.isnan(found.margin_of["Toby"])


def _left_alone(frame: SeenFrame) -> SeenFrame:
    keep = frame.boxes[:, 0] < 0.4
    return replace(
        frame,
        boxes=frame.boxes[keep],
        crops=frame.crops[keep],
        poses_deg=frame.poses_deg[keep],
        points_px=frame.points_px[keep],
        embeddings={pack: rows[keep] for pack, rows in frame.embeddings.items()},
    )


def test_places_share_the_width() -> None:
    assert places(3).tolist() == [[1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]]
