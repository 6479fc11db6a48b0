"""Who plays whom, what is said of them, and what goes on from what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from data_prep.records import InputError
from pipeline.storyboard.episode import Episode, read_episode
from pipeline.storyboard.plan import Plan, chosen_shots, plan
from tests.small_episode import write_episode

BANK = ("anna", "ben", "carla")


@pytest.fixture
def episode(tmp_path: Path) -> Episode:
    return read_episode(write_episode(tmp_path / "e.json"))


def planned(episode: Episode, mapping: Mapping[str, str] | None = None, can_continue: bool = True) -> Plan:
    return plan(episode, BANK, mapping or {}, 2, can_continue)


def test_by_the_rule_names_come_first_then_who_is_seen_most(episode: Episode) -> None:
    assert planned(episode).mapping == {"Nora": "anna", "Ben": "ben", "Ivo": "carla"}
    few = plan(episode, ["ben", "dora"], {}, 2, True)
    assert few.mapping == {"Nora": "dora", "Ben": "ben"} and few.unknown == ("Ivo",)


def test_by_hand_nobody_else_plays(episode: Episode) -> None:
    by_hand = planned(episode, {"Ivo": "anna"})
    assert by_hand.mapping == {"Ivo": "anna"} and by_hand.unknown == ("Nora", "Ben")
    assert [shot.cast for shot in by_hand.shots] == [(), (), ("anna",), (), ()]


def test_a_prompt_says_who_is_in_which_slot(episode: Episode) -> None:
    second = planned(episode).shots[1]
    assert second.cast == ("ben", "anna") and second.plays == ("Ben", "Nora")
    assert second.prompt == (
        "<person-1> is Ben: Young man in a blue coat. <person-2> is Nora: Woman with a grey plait. "
        "Ben <person-1> turns to Nora <person-2>; Nora nods. The Ferry: Deck of a small ferry."
    )
    by_hand = planned(episode, {"Nora": "anna"}).shots[1].prompt
    assert by_hand.startswith(
        "<person-1> is Nora: Woman with a grey plait. Ben turns to Nora <person-1>; Nora nods."
    )
    assert by_hand.endswith("Ben: Young man in a blue coat. The Ferry: Deck of a small ferry.")
    assert planned(episode).shots[4].prompt == "The shore lies empty."


def test_shots_that_are_not_cut_go_on_where_the_model_can(episode: Episode) -> None:
    assert [shot.continues for shot in planned(episode).shots] == [False, True, True, False, False]
    assert not any(shot.continues for shot in planned(episode, can_continue=False).shots)
    assert [shot.file for shot in planned(episode).shots] == [
        f"{n}.mp4" for n in ("1_1", "1_2", "1_3", "2_1", "2_2")
    ]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ["1:1", "1:2", "1:3", "2:1", "2:2"]),
        ("2", ["2:1", "2:2"]),
        ("2:1,1:2-3", ["1:2", "1:3", "2:1"]),
    ],
)
def test_shots_are_chosen(text: str, names: list[str], episode: Episode) -> None:
    assert [one.shot.name for one in chosen_shots(planned(episode), text)] == names


def test_what_cannot_be_is_named(episode: Episode) -> None:
    with pytest.raises(InputError, match="'3' names no shot; there are 1:1 to 2:2"):
        chosen_shots(planned(episode), "1,3")
    with pytest.raises(InputError, match="'Rolf' is no character of the episode; it has Nora, Ben, Ivo"):
        planned(episode, {"Rolf": "anna"})
    with pytest.raises(InputError, match="'dora' is not in the bank; it holds anna, ben, carla"):
        planned(episode, {"Nora": "dora"})
    with pytest.raises(InputError, match="two of the episode cannot be one"):
        planned(episode, {"Nora": "anna", "Ben": "anna"})
    with pytest.raises(InputError, match=r"shot 1:2: 2 characters \(Ben, Nora\), but identity.max_cast is 1"):
        plan(episode, BANK, {}, 1, True)
