"""Selection and building: cast, label map, keys, dropped windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from data_prep.analysis.limits import with_pack_limits
from data_prep.config import PrepareConfig, ReferenceConfig, WindowConfig
from data_prep.faces.packs import PACKS
from data_prep.records import U8, AnalysedClip, Captions, Clip, Decision, FaceTrack, Window
from data_prep.selection.references import candidates_of
from data_prep.selection.samples import (
    CropAddress,
    Plan,
    build,
    label_map,
    mask_boxes,
    people_in,
    sample_key,
    select,
)
from data_prep.shards import decode_sample, encode_sample

FRAMES, HEIGHT, WIDTH, DIM = 5, 48, 80, 16
CONFIG = with_pack_limits(
    PrepareConfig(
        manifest="m",
        output="o",
        windows=WindowConfig(max_cast=2),
        references=ReferenceConfig(min_count=2, max_count=3),
    ),
    PACKS["embedded"],
)


def face(person: int, variant: int) -> np.ndarray:
    """A unit vector of a person; variants have cosine 0.81 to each other."""
    vector = np.zeros(DIM, np.float32)
    vector[person], vector[8 + variant % 8] = 0.9, np.sqrt(1 - 0.81)
    return vector


def track(clip_id: str, number: int, person: int, norm: float = 5.0) -> FaceTrack:
    rows = np.arange(0, 100, 10, dtype=np.int32)
    return FaceTrack(
        id=f"{clip_id}-t{number}",
        clip_id=clip_id,
        shot=0,
        frames=rows,
        boxes_px=np.tile(np.array([0, 0, 80, 90], np.float32), (10, 1)),
        landmarks_px=np.zeros((10, 5, 2), np.float32),
        ovals_px=np.zeros((10, 36, 2), np.float32),
        scores=np.full(10, 0.95, np.float32),
        norms=np.full(10, norm, np.float32),
        sharpness=np.full(10, 100.0, np.float32),
        yaw_deg=np.linspace(-20, 20, 10, dtype=np.float32),
        pitch_deg=np.linspace(-20, 20, 10, dtype=np.float32),
        roll_deg=np.linspace(-20, 20, 10, dtype=np.float32),
        embedded=np.ones(10, bool),
        embeddings=np.stack([face(person, variant) for variant in range(10)]),
        crop_frames=rows[:4],  # up to 0.9 s after the window: inside the guard gap
        crops=np.full((4, 112, 112, 3), 10 * person + number, np.uint8),
    )


def clip(clip_id: str, tracks: Sequence[FaceTrack], track_map: U8, start_s: float = 0.0) -> AnalysedClip:
    frames = np.arange(0, FRAMES * 2, 2, dtype=np.int32)
    window = Window(0, 0, frames, b"mp4", track_map, tuple(t.id for t in tracks))
    made = Clip(
        clip_id, "film", f"{clip_id}.mp4", start_s, start_s + 5.0, 24.0, 160, 96, Captions(brief="Two talk.")
    )
    return AnalysedClip(made, 160, 96, np.arange(100) / 24, (), tuple(tracks), (window,))


def painted(**squares: tuple[int, int, int]) -> U8:
    """u8[T,H,W]; each square: left, side in pixels, number of frames; k-th keyword is track k."""
    maps = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    for value, (left, side, count) in enumerate(squares.values(), 1):
        maps[:count, 5 : 5 + side, left : left + side] = value
    return maps


def selected(clips: Sequence[AnalysedClip], character_of: dict[str, str], at: int = 0) -> Plan | Decision:
    candidates: dict[str, list] = {}
    for one in clips:
        for found in candidates_of(one, character_of):
            candidates.setdefault(found.character_id, []).append(found)
    plans, decisions = select(clips[at], character_of, candidates, CONFIG)
    return plans[0] if plans else decisions[0]


def two_clips(track_map: U8, **changes: float) -> list[AnalysedClip]:
    here = clip("here", [track("here", 0, 0), track("here", 1, 1, **changes), track("here", 2, 2)], track_map)
    there = clip("there", [track("there", 0, 0), track("there", 1, 1), track("there", 2, 2)], track_map, 50.0)
    return [here, there]


WHO = {f"{clip_id}-t{number}": f"c{number}" for clip_id in ("here", "there") for number in range(3)}


def test_the_cast_is_ordered_by_prominence_and_the_label_map_follows() -> None:
    clips = two_clips(painted(small=(2, 12, 5), large=(30, 20, 5), brief=(60, 14, 2)))
    plan = selected(clips, WHO)
    assert isinstance(plan, Plan)
    assert [(m.slot, m.character_id) for m in plan.note.cast] == [(1, "c1"), (2, "c0")]
    assert plan.note.cast[0].sentence.startswith("<person-1> is the person on the right")
    sample = build(plan, clips[0], lambda place: crop_of(clips, place))
    raw = clips[0].windows[0].track_map
    np.testing.assert_array_equal(sample.label_map == 1, raw == 2)
    np.testing.assert_array_equal(sample.label_map == 2, raw == 1)
    assert not sample.label_map[raw == 3].any()
    assert plan.note.boxes_px[0] == ((30.0, 5.0, 50.0, 25.0),) * FRAMES
    assert decode_sample(encode_sample(sample)).note == plan.note
    for slot, person in enumerate((1, 0)):
        assert (sample.references[slot] == 10 * person + person).all()
        assert {r.clip_id for r in plan.note.references[slot]} == {"there"}


def crop_of(clips: Sequence[AnalysedClip], place: CropAddress) -> U8:
    tracks = {t.id: t for c in clips for t in c.tracks}
    return np.asarray(tracks[place.track_id].crops[place.crop])


def test_nobody_who_is_excluded_is_in_a_window_however_briefly() -> None:
    clips = two_clips(painted(a=(2, 20, 5), b=(40, 4, 1)))
    plans, decisions = select(clips[0], WHO, {}, CONFIG, excluded={"here-t1"})
    assert plans == []
    assert (decisions[0].rule, decisions[0].value, decisions[0].detail) == (
        "excluded_character",
        "1 frames",
        "here-t1",
    )
    assert select(clips[0], WHO, {}, CONFIG, excluded={"here-t2"})[1][0].rule == "too_few_references"


def test_only_the_most_prominent_join_a_full_cast_and_the_others_stay_nobody() -> None:
    clips = two_clips(painted(small=(2, 10, 5), large=(30, 20, 5), middle=(60, 14, 5)))
    plan = selected(clips, WHO)
    assert isinstance(plan, Plan)
    assert [m.character_id for m in plan.note.cast] == ["c1", "c2"]
    sample = build(plan, clips[0], lambda place: crop_of(clips, place))
    assert set(np.unique(sample.label_map)) == {0, 1, 2}
    assert not sample.label_map[clips[0].windows[0].track_map == 1].any()


def test_two_tracks_of_one_person_are_one_slot() -> None:
    """A track that broke off behind somebody goes on as another; the label map must not change its number."""
    maps = painted(first=(2, 12, 2), other=(40, 20, 5))
    maps[3:, 5:17, 2:14] = 3
    who = {**WHO, "here-t2": "c0"}
    plan = selected(two_clips(maps), who)
    assert isinstance(plan, Plan)
    assert [m.character_id for m in plan.note.cast] == ["c1", "c0"]
    assert dict(plan.slots) == {"here-t1": 1, "here-t0": 2, "here-t2": 2}
    assert [box is None for box in plan.note.boxes_px[1]] == [False, False, True, False, False]


@pytest.mark.parametrize(
    ("maps", "who", "rule", "value"),
    [
        (painted(a=(2, 4, 5)), WHO, "nobody", "0"),
        (
            painted(a=(2, 20, 5)),
            {k: v for k, v in WHO.items() if k != "here-t0"},
            "unidentified_face",
            "20 px",
        ),
        (painted(a=(2, 20, 5)), {k: v for k, v in WHO.items() if k != "there-t0"}, "too_few_references", "0"),
    ],
)
def test_windows_are_dropped_with_a_rule(maps: U8, who: dict[str, str], rule: str, value: str) -> None:
    decision = selected(two_clips(maps), who)
    assert isinstance(decision, Decision)
    assert (decision.item, decision.kind, decision.fate) == ("here-0000", "window", "dropped")
    assert (decision.rule, decision.value) == (rule, value)


def test_one_person_without_references_drops_the_window_of_all() -> None:
    who = {k: v for k, v in WHO.items() if k != "there-t1"}
    decision = selected(two_clips(painted(a=(2, 20, 5), b=(40, 20, 5))), who)
    assert isinstance(decision, Decision)
    assert decision.rule == "too_few_references"
    assert decision.detail.startswith("c1:")


def test_someone_whose_faces_are_all_covered_drops_the_window() -> None:
    decision = selected(two_clips(painted(a=(2, 12, 5), b=(40, 20, 5)), norm=1.0), WHO)
    assert isinstance(decision, Decision)
    assert decision.rule == "no_usable_face"


def test_the_label_map_of_nobody_is_empty() -> None:
    window = two_clips(painted(a=(2, 20, 5)))[0].windows[0]
    assert not label_map(window, {}).any()
    assert label_map(window, {"here-t0": 7}).max() == 7


def test_boxes_are_those_of_the_painted_pixels() -> None:
    rng = np.random.default_rng(0)
    masks = np.zeros((20, 30, 40), bool)
    expected = []
    for mask in masks:
        x1, y1 = rng.integers(0, 30), rng.integers(0, 20)
        x2, y2 = x1 + rng.integers(1, 10), y1 + rng.integers(1, 10)
        mask[y1:y2, x1:x2] = True
        expected.append([x1, y1, x2, y2])
    np.testing.assert_array_equal(mask_boxes(masks), expected)
    assert np.isnan(mask_boxes(np.zeros((1, 4, 4), bool))).all()


def test_people_have_shares_of_frames_and_sizes() -> None:
    window = two_clips(painted(a=(2, 20, 3), b=(40, 10, 5)))[0].windows[0]
    first, second = people_in(replace(window, tracks=("here-t0", "here-t1")), WHO)
    assert (first.character_id, first.visible, first.side_px) == ("c0", 0.6, 20.0)
    assert (second.character_id, second.visible, second.prominence) == ("c1", 1.0, 100.0)


def test_keys_sort_by_clip_and_window_and_hold_no_dot() -> None:
    assert sample_key("clip_7-a", 12) == "clip_7-a-0012"
    assert sample_key("clip.7", 0) != sample_key("clip_7", 0)
    assert "." not in sample_key("clip.7 ü", 3)
    assert sample_key("a", 2) < sample_key("a", 10)
