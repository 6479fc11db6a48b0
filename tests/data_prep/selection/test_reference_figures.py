"""The figures of references, on notes whose origins and angles are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from data_prep.records import Captions
from data_prep.selection.reference_figures import dropped_shares, figures
from data_prep.shards import CastMember, ReferenceNote, SampleNote, ShardError, check_references


def reference(**changes: Any) -> ReferenceNote:
    made = ReferenceNote(
        "c1", "there", "film", "there-t0", 5, 0.2, "other_clip", 30.0, 0.7, 10.0, 0.0, 99.0, 80.0
    )
    return replace(made, **changes)


def note(*slots: tuple[ReferenceNote, ...]) -> SampleNote:
    return SampleNote(
        key="here-0000",
        clip_id="here",
        source_id="film",
        shot=0,
        window=0,
        start_s=0.0,
        end_s=1.0,
        frames=(10, 12, 14),
        frame_times_s=(0.4, 0.48, 0.56),
        fps=12.5,
        width_px=80,
        height_px=48,
        cast=tuple(CastMember(slot, f"c{slot}", "") for slot in range(1, len(slots) + 1)),
        references=slots,
        boxes_px=tuple(() for _ in slots),
        captions=Captions(),
        guard_gap_s=1.0,
        similarity_bounds=(0.4, 0.97),
    )


SAMPLE = note(
    (
        reference(yaw_deg=-20.0),
        reference(yaw_deg=15.0, clip_id="far", source_id="other", time_gap_s=None, similarity=0.5),
        reference(yaw_deg=0.0, clip_id="here", origin="other_shot", frame=200, time_gap_s=4.0),
    ),
    (
        reference(
            character_id="c2", clip_id="here", origin="same_shot", frame=90, time_gap_s=2.5, size_px=120.0
        ),
    ),
)


def test_everything_is_counted() -> None:
    found = figures([SAMPLE, SAMPLE])
    assert (found.num_slots, found.num_references, found.num_inside) == (4, 8, 0)
    assert found.origins == {"other_clip": 2, "other_source": 2, "other_shot": 2, "same_shot": 2}
    assert found.per_slot == {"1": 2, "3": 2}
    assert found.yaw_spread_deg == {"p10": 0.0, "median": 17.5, "p90": 35.0}
    assert found.smallest_gap_s == 2.5
    assert found.similarity is not None and found.similarity["p10"] == 0.5
    assert found.size_px is not None and found.size_px["p90"] == pytest.approx(120.0)
    assert "2 other source" in found.sentence()


def test_a_face_from_the_sample_itself_is_counted() -> None:
    inside = note((reference(clip_id="here", origin="same_shot", frame=12, time_gap_s=0.0),))
    overlapping = note((reference(time_gap_s=0.0),))
    assert figures([inside, overlapping, SAMPLE]).num_inside == 2
    assert "2 from frames being trained on" in figures([inside, overlapping]).sentence()


def test_nothing_has_no_figures() -> None:
    assert figures([]).sentence() == "no references"


def test_shares_are_of_windows_alone() -> None:
    lost = {"window: too_few_references": 30, "clip: no_face": 5, "window: nobody": 10}
    assert dropped_shares(lost, 100) == {"too_few_references": 0.3, "nobody": 0.1}
    assert dropped_shares({}, 0) == {}


@pytest.mark.parametrize("similarity", [0.39, 0.98])
def test_both_bounds_on_similarity_hold_at_pack_and_load(similarity: float) -> None:
    check_references(SAMPLE)
    broken = note((reference(similarity=similarity),))
    with pytest.raises(ShardError, match=f"has similarity {similarity}, allowed is 0.4 to 0.97"):
        check_references(broken)
