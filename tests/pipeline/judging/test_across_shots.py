"""Shots of an episode whose people and gaps are known: likeness by gap, the gate, presence against the schedule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data_prep.records import InputError
from pipeline.judging.across_shots import across_shots, episode_figures, recurrence
from pipeline.judging.evaluate import Evaluation, judge
from pipeline.judging.galleries import Gallery
from pipeline.judging.sight import SeenFrame

CAST, DIM = ("Ann", "Ben"), 512
AXES = np.eye(DIM, dtype=np.float32)


def turned(angle_deg: float, axis: int) -> np.ndarray:
    """A unit vector so far from the axis of a person."""
    angle = np.deg2rad(angle_deg)
    return (np.cos(angle) * AXES[axis] + np.sin(angle) * AXES[axis + 100]).astype(np.float32)


def shot(*people: np.ndarray) -> Evaluation:
    """Four frames in which these faces are seen, judged against Ann on axis 0 and Ben on axis 1."""
    rows = np.array(people, np.float32).reshape(-1, DIM)
    boxes = np.array([[0.2 * k, 0, 0.2 * k + 0.1, 0.1] for k in range(len(rows))], np.float32).reshape(-1, 4)
    frame = SeenFrame(boxes, np.zeros((len(rows), 112, 112, 3), np.uint8), embeddings={"embedded": rows})
    gallery = Gallery("embedded", {name: AXES[k : k + 1] for k, name in enumerate(CAST)})
    return judge([frame] * 4, [gallery], CAST)


def test_likeness_by_gap_is_that_of_the_faces() -> None:
    """Ann turns away from herself by 10 degrees a shot, and is out of the third."""
    shots = {f"1_{k + 1}": shot(*([] if k == 2 else [turned(10 * k, 0)])) for k in range(5)}
    schedule = {name: {"Ann"} if name != "1_3" else set() for name in shots}
    (found,) = across_shots(shots, schedule)
    again = found.recurrence
    assert again.gaps.tolist() == [1, 2, 3, 4]
    assert again.num_pairs.tolist() == [2, 1, 2, 1]
    assert again.similarity == pytest.approx(np.cos(np.deg2rad([10, 20, 30, 40])), abs=1e-5)
    assert again.slope < -0.05
    assert (found.gate, found.precision, found.recall) == (1, 1, 1)


def test_slope_and_mean_against_a_plain_loop() -> None:
    generator = np.random.default_rng(0)
    identities = generator.normal(size=(7, 3, 16)).astype(np.float32)
    identities /= np.linalg.norm(identities, axis=2, keepdims=True)
    right = generator.random((7, 3)) < 0.7
    found = recurrence(identities, right)
    pairs = [
        (later - earlier, float(identities[earlier, i] @ identities[later, i]))
        for i in range(3)
        for earlier in range(7)
        for later in range(earlier + 1, 7)
        if right[earlier, i] and right[later, i]
    ]
    gaps, cosines = np.array(pairs).T
    assert found.mean == pytest.approx(cosines.mean())
    assert found.slope == pytest.approx(np.polyfit(gaps, cosines, 1)[0])
    assert found.num_pairs.sum() == len(pairs)


def test_a_wrong_face_that_never_changes_gains_nothing() -> None:
    """Whoever plays Ann is somebody else, always the same: without a gate her consistency would be 1."""
    shots = {f"1_{k}": shot(AXES[200], AXES[1]) for k in range(3)}
    (found,) = across_shots(shots, {name: set(CAST) for name in shots})
    assert found.gate == 0.5
    assert found.recurrence.num_pairs.sum() == 3  # Ben's alone
    assert found.recall == 0.5


def test_presence_is_counted_against_the_schedule() -> None:
    shots = {"1_1": shot(AXES[0]), "1_2": shot(AXES[0], AXES[1]), "2_1": shot()}
    schedule = {"1_1": {"Ann", "the lamp"}, "1_2": {"Ann"}, "2_1": {"Ben", "Ann"}}
    (found,) = across_shots(shots, schedule)
    assert found.precision == pytest.approx(2 / 3)  # Ben came uncalled
    assert found.recall == pytest.approx(2 / 4)
    assert episode_figures([found])["presence_recall/embedded"] == found.recall


def test_nobody_at_all_is_nan() -> None:
    (found,) = across_shots({"1_1": shot()}, {"1_1": {"Ann"}})
    assert np.isnan(found.precision)
    assert found.recall == 0
    assert np.isnan(found.recurrence.mean)


def test_wrong_input_is_named() -> None:
    with pytest.raises(InputError, match=r"nothing about shot 9_9; it has 1_1"):
        across_shots({"9_9": shot()}, {"1_1": {"Ann"}})
    other = replace(shot(), cast=CAST[::-1])
    with pytest.raises(InputError, match="different casts"):
        across_shots({"1_1": shot(), "1_2": other}, {"1_1": set(), "1_2": set()})
