"""Evaluation on footage whose people are known by construction: likeness, bleed, swaps, absence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data_prep.faces import FaceAnalyser
from data_prep.footage import ClipTruth
from data_prep.records import U8, InputError
from pipeline.judging.evaluate import Evaluation, judge
from pipeline.judging.galleries import Gallery
from pipeline.judging.means import mean_of
from pipeline.judging.page import matrix_picture, page
from pipeline.judging.sight import SeenFrame, see
from pipeline.judging.stored import arrays_of, as_json, from_json
from tests.judged_people import CAST, PACKS, every_nth, exchanged, only

CLIP, EVERY = "cafe-01", 9


@pytest.fixture(scope="module")
def seen(footage: Path, analyser: FaceAnalyser) -> list[SeenFrame]:
    return see(every_nth(footage / "clips" / f"{CLIP}.mp4", EVERY), analyser, PACKS)


@pytest.fixture(scope="module")
def layout(footage: Path) -> U8:
    """Where each of CAST truly is, u8[T,H,W]."""
    truth = ClipTruth.load(footage / "truth" / f"{CLIP}.npz")
    slots = np.array([0, *(1 + CAST.index(str(name)) for name in truth.people)], np.uint8)
    return slots[truth.labels[::EVERY]]


@pytest.fixture(scope="module")
def evaluation(seen: list[SeenFrame], galleries: tuple[Gallery, ...], layout: U8) -> Evaluation:
    return judge(seen, galleries, CAST, layout)


def test_own_likeness_beats_every_other_by_both_recognisers(evaluation: Evaluation) -> None:
    assert [scores.pack for scores in evaluation.scores] == ["embedded", "embedded_alt"]
    for scores in evaluation.scores:
        own, other = np.diagonal(scores.similarity), scores.similarity[~np.eye(2, dtype=bool)]
        assert own.min() > scores.same_person > other.max()
        assert scores.margin.min() > 0.2
        assert scores.swap_rate == 0
        assert scores.coverage.min() > 0.8


def test_without_a_layout_faces_find_their_character(
    seen: list[SeenFrame], galleries: tuple[Gallery, ...], evaluation: Evaluation
) -> None:
    found = judge(seen, galleries, CAST)
    assert found.located_by == "similarity"
    for scores, placed in zip(found.scores, evaluation.scores, strict=True):
        assert np.abs(scores.similarity - placed.similarity).max() < 0.05
        assert scores.swap_rate == 0


def test_exchanged_references_are_swapped_everywhere(
    seen: list[SeenFrame], galleries: tuple[Gallery, ...], layout: U8
) -> None:
    wrong = [
        Gallery(one.pack, dict(zip(CAST, reversed(one.faces.values()), strict=True))) for one in galleries
    ]
    for scores in judge(seen, wrong, CAST, layout).scores:
        assert scores.swap_rate == 1
        assert scores.recognised.max() == 0
        assert scores.margin.max() < 0


def test_a_face_that_changes_who_it_is_counts_as_swapped(
    seen: list[SeenFrame], galleries: tuple[Gallery, ...], layout: U8
) -> None:
    """From three quarters on, the two exchange their faces in place."""
    both = [t for t, frame in enumerate(seen) if len(frame.boxes) == 2]
    late = set(both[len(both) * 3 // 4 :])
    changed = [exchanged(frame) if t in late else frame for t, frame in enumerate(seen)]
    expected = 2 * len(late) / sum(len(frame.boxes) for frame in seen)
    assert judge(changed, galleries, CAST).scores[0].swap_rate == pytest.approx(expected)


def test_a_missing_person_counts(seen: list[SeenFrame], galleries: tuple[Gallery, ...], layout: U8) -> None:
    half = [frame if t % 2 else only(frame, []) for t, frame in enumerate(seen)]
    whole, halved = judge(seen, galleries, CAST).scores[0], judge(half, galleries, CAST).scores[0]
    assert halved.coverage.max() <= 0.51
    assert halved.recognised.max() <= 0.51
    assert np.abs(halved.similarity - whole.similarity).max() < 0.1


def test_nobody_seen_is_nan_and_null_not_zero(
    footage: Path, analyser: FaceAnalyser, galleries: tuple[Gallery, ...]
) -> None:
    empty = see(every_nth(footage / "clips" / "meadow-01.mp4", 24), analyser)
    evaluation = judge(empty, galleries, CAST)
    for scores in evaluation.scores:
        assert scores.coverage.tolist() == [0, 0]
        assert scores.recognised.tolist() == [0, 0]
        assert np.isnan(scores.similarity).all()
        assert np.isnan(scores.margin).all()
        assert np.isnan(scores.swap_rate)
    plain = json.loads(json.dumps(as_json(evaluation), allow_nan=False))
    assert plain["scores"][0]["similarity"] == [[None, None], [None, None]]
    assert matrix_picture(evaluation, {}).ndim == 3


def test_the_order_of_the_cast_only_reorders_the_answer(
    seen: list[SeenFrame], galleries: tuple[Gallery, ...], evaluation: Evaluation, layout: U8
) -> None:
    other_slots = np.array([0, 2, 1], np.uint8)[layout]
    other = judge(seen, galleries, CAST[::-1], other_slots)
    assert np.array_equal(other.scores[0].similarity[::-1, ::-1], evaluation.scores[0].similarity)
    assert np.array_equal(other.faces[::-1], evaluation.faces)


def test_small_frames_are_enlarged_and_still_recognised(
    footage: Path, analyser: FaceAnalyser, galleries: tuple[Gallery, ...]
) -> None:
    import cv2

    frames = every_nth(footage / "clips" / f"{CLIP}.mp4", 24)
    small = [cv2.resize(frame, (240, 136), interpolation=cv2.INTER_AREA) for frame in frames]
    scores = judge(see(small, analyser), galleries, CAST).scores[0]
    assert scores.similarity[0, 0] > scores.similarity[0, 1]
    assert scores.similarity[1, 1] > scores.similarity[1, 0]


def test_the_mean_over_videos_leaves_out_who_was_not_seen(
    seen: list[SeenFrame], galleries: tuple[Gallery, ...], evaluation: Evaluation
) -> None:
    nobody = [only(frame, []) for frame in seen]
    mean = mean_of([judge(nobody, galleries, CAST), evaluation])
    for both, one in zip(mean.scores, evaluation.scores, strict=True):
        assert np.array_equal(both.similarity, one.similarity)
        assert np.allclose(both.coverage, one.coverage / 2)
        assert both.own.shape == (2 * len(seen), 2)
    assert np.array_equal(mean.faces, evaluation.faces)
    with pytest.raises(InputError, match="different casts"):
        mean_of([evaluation, judge(nobody, galleries, CAST[::-1])])


def test_wrong_input_is_named(seen: list[SeenFrame], galleries: tuple[Gallery, ...], layout: U8) -> None:
    with pytest.raises(InputError, match="no reference face of 'Zoe'; there are Nora, Oscar"):
        judge(seen, galleries, ("Nora", "Zoe"))
    with pytest.raises(InputError, match="0 frames"):
        judge([], galleries, CAST)
    with pytest.raises(InputError, match="3 maps for"):
        judge(seen, galleries, CAST, layout[:3])
    with pytest.raises(InputError, match="slot 2 in it and a cast of 1"):
        judge(seen, galleries, CAST[:1], layout)


def test_what_is_kept_of_an_evaluation_is_the_evaluation(evaluation: Evaluation) -> None:
    back = from_json(json.loads(json.dumps(as_json(evaluation), allow_nan=False)), arrays_of(evaluation))
    assert as_json(back) == as_json(evaluation)
    assert np.array_equal(back.faces, evaluation.faces)
    for one, other in zip(back.scores, evaluation.scores, strict=True):
        assert one.own.shape == other.own.shape
        assert np.array_equal(one.identity, other.identity)


def test_the_page_is_self_contained(evaluation: Evaluation, crops: dict[str, U8]) -> None:
    portraits = {name: faces[0] for name, faces in crops.items()}
    text = page(["a <video>"], [evaluation], portraits)
    assert "a &lt;video&gt;" in text
    assert text.count("data:image/png;base64,") == 1
    assert "http" not in text
    assert all(name in text for name in CAST)
