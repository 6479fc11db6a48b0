"""Samples of a few small films through a real endpoint: bound to slots, paid for once, stopped by the cap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_prep.analysis import store as analysis_store
from data_prep.captioning.endpoint import Endpoint
from data_prep.captioning.stage import question_key, recaption
from data_prep.config import CaptionConfig
from data_prep.records import AnalysedClip, Captions, Clip, Decision, InputError, Window
from data_prep.running.work import ClipWork
from data_prep.selection.captions import training_caption
from data_prep.selection.samples import Plan
from data_prep.shards import CastMember, SampleNote
from data_prep.video.encode import encode_mp4
from tests.chat_lab import ChatLab, plain, sample

NUM_CLIPS = 4
PLACES = ("on the left", "on the right: she waves")


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ClipWork]:
    folder = tmp_path_factory.mktemp("analyses")
    video = np.random.default_rng(1).integers(0, 255, (3, 48, 80, 3), np.uint8)
    window = Window(
        0, 0, np.arange(3, dtype=np.int32), encode_mp4(video, 8.0), np.zeros((3, 48, 80), np.uint8), ()
    )
    made = {}
    for at in range(NUM_CLIPS):
        captions = Captions(brief="Two talk.", style="Grainy") if at else Captions(lighting="Soft")
        clip = Clip(f"clip{at}", "film", "/x", 0, 1, 8, 80, 48, captions)
        (folder / clip.id).mkdir()
        analysed = AnalysedClip(clip, 80, 48, np.arange(3) / 8, (), (), (window,))
        analysis_store.save(analysed, folder / clip.id)
        made[clip.id] = ClipWork(clip, f"key{at}", folder / clip.id)
    return made


@pytest.fixture
def plans(works: Mapping[str, ClipWork]) -> list[Plan]:
    """Two people in each sample, but one in the last."""
    made = []
    for work in works.values():
        count = 1 if work.clip.id == f"clip{NUM_CLIPS - 1}" else 2
        sentences = [f"<person-{slot}> is the person {PLACES[slot - 1]}." for slot in range(1, count + 1)]
        note = SampleNote(
            key=f"{work.clip.id}-0000",
            clip_id=work.clip.id,
            source_id="film",
            shot=0,
            window=0,
            start_s=0,
            end_s=1,
            frames=(0, 1, 2),
            frame_times_s=(0, 0.125, 0.25),
            fps=8,
            width_px=80,
            height_px=48,
            cast=tuple(CastMember(slot, f"c{slot}", s) for slot, s in enumerate(sentences, 1)),
            references=(),
            boxes_px=tuple(((5.0, 5.0, 25.0, 30.0),) * 3 for _ in sentences),
            captions=work.clip.captions,
            guard_gap_s=1,
        )
        made.append(Plan(note, training_caption(sentences, note.captions), (("t", 1),), (), 10_000))
    return made


def run(
    plans: list[Plan], works: dict[str, ClipWork], config: CaptionConfig, cache: Path
) -> tuple[list[Plan], list[Decision]]:
    return recaption(plans, works, Endpoint(config), config, cache, lambda stage, done, total: None)


def test_what_is_said_of_a_number_is_bound_to_its_slot_and_fields_stay_apart(
    plans: list[Plan], works: dict[str, ClipWork], config: CaptionConfig, tmp_path: Path
) -> None:
    made, decisions = run(plans, works, config, tmp_path / "a")
    assert decisions == []
    first, second = made[0], made[1]
    assert [member.sentence for member in second.note.cast] == [
        "<person-1> is the person on the left: a person in shirt 1, waving.",
        "<person-2> is the person on the right: a person in shirt 2, waving.",
    ]
    assert second.caption == (
        "<person-1> is the person on the left: a person in shirt 1, waving. "
        "<person-2> is the person on the right: a person in shirt 2, waving. "
        "In picture 2 <person-1> and <person-2> talk. Grainy."
    )
    assert second.note.captions == Captions(brief="Two talk.", style="Grainy")
    assert first.note.captions == Captions(
        brief="In picture 1 <person-1> and <person-2> talk", lighting="Soft"
    )
    assert [plan.note.key for plan in made] == [plan.note.key for plan in plans]
    assert [member.character_id for member in second.note.cast] == ["c1", "c2"]


def test_a_second_run_asks_nothing_and_says_the_same(
    plans: list[Plan], works: dict[str, ClipWork], config: CaptionConfig, chat: ChatLab, tmp_path: Path
) -> None:
    made = run(plans, works, config, tmp_path / "a")
    assert len(chat.requests) == 2  # four samples by three
    again = run(plans, works, replace(config, max_usd=0.0), tmp_path / "a")
    assert again == made and len(chat.requests) == 2
    run(plans, works, replace(config, model="another"), tmp_path / "a")
    assert len(chat.requests) == 4
    moved = replace(plans[0], slots=(("t", 2),))
    assert question_key(moved, "key0", "seer") != question_key(plans[0], "key0", "seer")
    assert question_key(plans[0], "other", "seer") != question_key(plans[0], "key0", "seer")


def test_the_cap_stops_it_keeps_what_was_answered_and_more_money_goes_on(
    plans: list[Plan], works: dict[str, ClipWork], config: CaptionConfig, chat: ChatLab, tmp_path: Path
) -> None:
    few = replace(config, samples_per_request=1, num_parallel=1)
    one_usd = Endpoint(few).most_usd([])
    with pytest.raises(InputError, match=r"captions\.max_usd: .* dollars are spent, and the next request"):
        run(plans, works, replace(few, max_usd=one_usd + 5.0), tmp_path / "a")
    asked = len(chat.requests)
    assert 1 <= asked < len(plans)
    made, _ = run(plans, works, few, tmp_path / "a")
    assert len(chat.requests) == len(plans)
    assert all("shirt" in plan.caption for plan in made)


def test_useless_answers_are_asked_for_again_alone_and_then_left_with_a_line_in_the_ledger(
    plans: list[Plan], works: dict[str, ClipWork], config: CaptionConfig, chat: ChatLab, tmp_path: Path
) -> None:
    bad = {"people": {"1": "a man"}, "scene": "no second person"}

    def script(number: int, people: list[int]) -> dict[str, object]:
        good = plain(number, people)["samples"]
        return {"samples": [bad if count == 2 and at == 1 else good[at] for at, count in enumerate(people)]}

    chat.script = script
    made, decisions = run(plans, works, config, tmp_path / "a")
    assert decisions == []  # alone, it is the first picture, and answered well
    assert len(chat.requests) == 3
    chat.script = lambda number, people: {"samples": [bad if n == 2 else sample(1, n) for n in people]}
    made, decisions = run(plans, works, replace(config, model="worse", max_failed=0.8), tmp_path / "a")
    assert [(d.item, d.fate, d.stage, d.rule) for d in decisions] == [
        (f"clip{at}-0000", "kept", "caption", "no_usable_answer") for at in range(3)
    ]
    assert "people.2 is no text" in decisions[0].detail
    assert made[:3] == plans[:3] and "shirt 1" in made[3].caption
    with pytest.raises(
        InputError, match=r"captions\.max_failed: of 4 samples 3 got no usable answer, allowed are 2"
    ):
        run(plans, works, replace(config, model="worse", max_failed=0.5), tmp_path / "a")


def test_several_are_asked_at_once_and_a_refusal_ends_it(
    plans: list[Plan], works: dict[str, ClipWork], config: CaptionConfig, chat: ChatLab, tmp_path: Path
) -> None:
    chat.script = lambda number, people: 403
    with pytest.raises(InputError, match="403"):
        run(plans, works, config, tmp_path / "a")
    assert not (tmp_path / "a").exists() or (tmp_path / "a").read_bytes() == b""
