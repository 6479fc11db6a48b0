"""What the proof holds out is nowhere in what it shows."""

from __future__ import annotations

from itertools import combinations

from data_prep.footage.cast import TAKES as PLAYED
from jobs.proving.casting import (
    ADDED,
    HELD_OUT_MIDDLE,
    HELD_OUT_PAIRS,
    PEOPLE,
    TAKES,
    asked,
    asked_of_added,
    shown_casts,
)
from jobs.proving.footage import clips, scene_of

TOGETHER = {frozenset(pair) for cast, _ in shown_casts() for pair in combinations(cast, 2)}


def test_every_take_shows_the_one_person_that_it_is_listed_for() -> None:
    assert all(PLAYED[take].people == (name,) for name, takes in TAKES.items() for take in takes)


def test_every_person_has_one_pair_that_is_held_out_and_is_seen_with_all_others() -> None:
    assert sorted(name for pair in HELD_OUT_PAIRS for name in pair) == sorted(PEOPLE)
    held_out = {frozenset(pair) for pair in HELD_OUT_PAIRS}
    assert {pair for pair in TOGETHER if ADDED not in pair} == {
        frozenset(pair) for pair in combinations(PEOPLE, 2) if frozenset(pair) not in held_out
    }


def test_what_is_asked_for_as_unseen_was_not_shown() -> None:
    shown = {frozenset(cast) for cast, _ in shown_casts()}
    for scene in asked():
        assert (frozenset(scene.cast) in shown) == (scene.group == "seen")
        if scene.group == "pairs":
            assert frozenset(scene.cast) not in TOGETHER
    assert all(frozenset(scene.cast) not in shown and ADDED in scene.cast for scene in asked_of_added())


def test_threes_are_asked_for_in_places_and_before_a_wall_that_training_had_not() -> None:
    threes = [(cast, place) for cast, place in shown_casts() if len(cast) == 3]
    assert not {cast[1] for cast, _ in threes} & set(HELD_OUT_MIDDLE)
    wanted = [scene for scene in asked() if scene.group == "trios"]
    assert {scene.cast[1] for scene in wanted} & set(HELD_OUT_MIDDLE)
    assert any(scene.backdrop not in {place for _, place in threes} for scene in wanted)


def test_prompts_bind_slots_to_places_and_name_nobody() -> None:
    for scene in [*asked(), *asked_of_added()]:
        assert not any(name in scene.prompt for name in TAKES)
        assert sorted(scene.names) == sorted(scene.cast)
        for slot, name in enumerate(scene.names, 1):
            place = ("left", "middle", "right")[scene.cast.index(name) * 2 // (len(scene.cast) - 1)]
            assert f"<person-{slot}> is the person " in scene.prompt
            sentence = scene.prompt.split(f"<person-{slot}> is the person ")[1].split(".")[0]
            assert sentence.endswith(place)


def test_clips_are_the_same_every_time_and_differ_from_each_other() -> None:
    made = clips(2)
    assert len(made) == 2 * len(shown_casts())
    assert scene_of(made[3]) == scene_of(clips(2)[3])
    assert len({scene_of(clip).shots for clip in made}) == len(made)
