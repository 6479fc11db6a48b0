"""References: never from the frames trained on, whatever the corpus; then the order in which they are preferred."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from data_prep.config import ReferenceConfig
from data_prep.records import F32, Decision
from data_prep.selection.references import Candidate, Pick, Target, choose, origin_of, time_gap_s

DIM = 32
FACE = np.eye(DIM, dtype=np.float32)[0]
CONFIG = ReferenceConfig(min_score=0.8, min_norm=2.8, min_similarity=0.4)


def looking_like(similarity: float, direction: int) -> F32:
    """A unit vector at this cosine from FACE, in a direction of its own."""
    other = np.eye(DIM, dtype=np.float32)[direction]
    return np.asarray(similarity * FACE + np.sqrt(1 - similarity**2) * other, np.float32)


def target(**changes: Any) -> Target:
    made = Target(
        window_id="here-0000",
        character_id="c1",
        clip_id="here",
        source_id="film",
        shot=1,
        first_s=104.0,
        last_s=105.0,
        span_s=(100.0, 110.0),
        yaw_deg=0.0,
        faces=FACE[None],
    )
    return replace(made, **changes)


def test_a_gap_is_what_the_shard_will_say() -> None:
    """A gap that rounds to 0 is inside, or packing would refuse what selecting let pass."""
    assert time_gap_s(target(), candidate(0, source_time_s=105.00004)) == 0.0
    assert time_gap_s(target(), candidate(0, source_time_s=105.00006)) == 0.0001


def candidate(number: int, **changes: Any) -> Candidate:
    made = Candidate(
        character_id="c1",
        clip_id="there",
        source_id="film",
        track_id="there-t0",
        shot=0,
        crop=number,
        frame=number,
        time_s=number / 24,
        source_time_s=200.0 + number / 24,
        span_s=(200.0, 210.0),
        score=0.95,
        norm=5.0,
        sharpness=150.0,
        size_px=90.0,
        yaw_deg=0.0,
        embedding=looking_like(0.8, 1 + number % (DIM - 1)),
    )
    return replace(made, **changes)


def chosen(result: tuple[Pick, ...] | Decision) -> list[int]:
    assert isinstance(result, tuple), result
    return [pick.crop for pick in result]


def random_candidate(rng: np.random.Generator, number: int) -> Candidate:
    """Anywhere: this clip and shot, this clip before the cut, an overlapping clip, another clip or source."""
    place = rng.integers(5)
    start = (100.0, 100.0, float(rng.uniform(95, 108)), 300.0, 100.0)[place]
    time_s = float(rng.uniform(0, 10))
    return candidate(
        number,
        clip_id=("here", "here", "overlapping", "there", "elsewhere")[place],
        source_id="other film" if place == 4 else "film",
        shot=(1, 0, 0, 0, 1)[place],
        frame=int(time_s * 24),
        time_s=time_s,
        source_time_s=start + time_s,
        span_s=(start, start + 10.0),
        score=float(rng.uniform(0.6, 1)),
        norm=float(rng.uniform(1, 6)),
        sharpness=float(rng.uniform(5, 200)),
        size_px=float(rng.uniform(20, 200)),
        yaw_deg=float(rng.uniform(-60, 60)),
        embedding=looking_like(float(rng.uniform(0.2, 1.0)), 1 + number % (DIM - 1)),
    )


@pytest.mark.parametrize("seed", range(60))
def test_no_reference_comes_from_the_window_or_its_guard_gap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    config = replace(CONFIG, min_count=1)
    candidates = [random_candidate(rng, number) for number in range(int(rng.integers(1, 80)))]
    first_s = float(rng.uniform(100, 108))
    here = target(first_s=first_s, last_s=first_s + float(rng.uniform(0.1, 2)))
    result = choose(here, candidates, config)
    if isinstance(result, Decision):
        assert result.rule == "too_few_references"
        return
    assert config.min_count <= len(result) <= config.max_count
    for pick in result:
        face = candidates[pick.crop]
        gap = max(here.first_s - face.source_time_s, face.source_time_s - here.last_s)
        if face.source_id == here.source_id:
            assert gap > 0
            touches = face.span_s[0] < here.span_s[1] and here.span_s[0] < face.span_s[1]
            if touches and (face.clip_id != here.clip_id or face.shot == here.shot):
                assert gap >= config.guard_gap_s
            assert pick.note.time_gap_s == pytest.approx(gap, abs=1e-3)
        else:
            assert pick.note.time_gap_s is None
        assert face.score >= 0.8
        assert face.norm >= 2.8
        assert face.sharpness >= 20
        assert face.size_px >= 40
        similarity = float(face.embedding @ FACE)
        assert 0.4 <= similarity <= 0.97
        assert pick.note.similarity == pytest.approx(similarity, abs=1e-3)
    pictures = np.stack([candidates[pick.crop].embedding for pick in result])
    assert np.triu(pictures @ pictures.T, 1).max() <= config.max_similarity


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"clip_id": "here", "span_s": (100.0, 110.0), "source_time_s": 104.5, "shot": 1},
            "inside the window",
        ),
        ({"clip_id": "here", "span_s": (100.0, 110.0), "source_time_s": 105.9, "shot": 1}, "within 1 s"),
        ({"clip_id": "copy", "span_s": (104.0, 109.0), "source_time_s": 105.9, "shot": 0}, "within 1 s"),
        ({"score": 0.79}, "score < 0.8"),
        ({"norm": 2.7}, "norm < 2.8"),
        ({"sharpness": 19.0}, "sharpness < 20"),
        ({"size_px": 39.5}, "size < 40 px"),
        ({"embedding": looking_like(0.39, 9)}, "similarity < 0.4"),
        ({"embedding": looking_like(0.98, 9)}, "similarity > 0.97"),
    ],
)
def test_a_window_is_dropped_with_the_rule_the_number_and_the_limit(
    change: dict[str, Any], reason: str
) -> None:
    candidates = [candidate(0), candidate(1), candidate(2, **change)]
    result = choose(target(), candidates, CONFIG)
    assert isinstance(result, Decision)
    assert (result.item, result.fate, result.rule) == ("here-0000", "dropped", "too_few_references")
    assert (result.value, result.limit) == ("2", ">= 3")
    assert result.detail == f"c1: 1 {reason}"


def test_someone_seen_nowhere_else_has_no_reference() -> None:
    result = choose(target(), [], CONFIG)
    assert isinstance(result, Decision)
    assert (result.value, result.detail) == ("0", "c1: seen nowhere else")


def test_the_same_picture_is_judged_by_the_nearest_face_of_the_window() -> None:
    """The mean of a turning head is like no frame of it; a copy of one frame must still be refused."""
    turning = np.stack([FACE, looking_like(0.5, 1)])
    copies = [candidate(n, embedding=FACE) for n in range(3)]
    result = choose(target(faces=turning), copies, CONFIG)
    assert isinstance(result, Decision)
    assert "3 similarity > 0.97" in result.detail


def test_origins_and_their_rank() -> None:
    here = target()
    assert origin_of(here, candidate(0)) == ("other_clip", 0)
    assert origin_of(here, candidate(0, source_id="other")) == ("other_clip", 1)
    assert origin_of(here, candidate(0, clip_id="here", shot=0)) == ("other_shot", 2)
    assert origin_of(here, candidate(0, clip_id="here", shot=1)) == ("same_shot", 3)
    assert time_gap_s(here, candidate(0, source_time_s=101.0)) == 3.0
    assert time_gap_s(here, candidate(0, source_time_s=107.5)) == 2.5
    assert time_gap_s(here, candidate(0, source_id="other")) is None


def test_a_worse_origin_only_fills_up_to_the_least_number() -> None:
    near = [
        candidate(n, clip_id="here", shot=1, source_time_s=108.0, span_s=(100.0, 110.0)) for n in range(4, 8)
    ]
    enough = [candidate(n) for n in range(3)]
    assert set(chosen(choose(target(), [*near, *enough], CONFIG))) == {0, 1, 2}
    result = choose(target(), [*near, *enough[:2]], CONFIG)
    assert {0, 1} < set(chosen(result))
    assert isinstance(result, tuple)
    assert [pick.note.origin for pick in result][:2] == ["other_clip", "other_clip"]


def test_yaw_is_spread_and_repeats_are_left_out() -> None:
    yaws = [0.0, 1.0, 2.0, -35.0, 34.0, 3.0]
    candidates = [candidate(n, yaw_deg=yaw) for n, yaw in enumerate(yaws)]
    candidates.append(candidate(6, yaw_deg=50.0, embedding=candidates[4].embedding, score=0.81))
    config = replace(CONFIG, max_count=3)
    picked = [candidates[at] for at in chosen(choose(target(), candidates, config))]
    assert {face.yaw_deg for face in picked} >= {-35.0, 34.0} or {face.yaw_deg for face in picked} >= {
        -35.0,
        50.0,
    }
    assert not {4, 6} <= {face.crop for face in picked}


def test_the_order_of_candidates_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    candidates = [random_candidate(rng, number) for number in range(60)]
    config = replace(CONFIG, min_count=1)
    expected = choose(target(), candidates, config)
    for _ in range(3):
        shuffled = [candidates[at] for at in rng.permutation(len(candidates))]
        assert choose(target(), shuffled, config) == expected
