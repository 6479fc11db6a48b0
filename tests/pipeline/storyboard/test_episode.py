"""An episode as it is written, and what is said of one that is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_prep.records import InputError
from pipeline.storyboard.episode import read_episode
from tests.small_episode import SHOTS, episode, write_episode


def test_scenes_cuts_and_who_is_in_them(tmp_path: Path) -> None:
    read = read_episode(write_episode(tmp_path / "e.json"))
    assert read.id == "ferry__run1__T40" and [shot.name for shot in read.shots] == list(SHOTS)
    assert [shot.cut for shot in read.shots] == [True, False, False, True, True]
    second = read.shots[1]
    assert second.characters == ("Ben", "Nora") and second.places == ("The Ferry",)
    assert second.action == "Ben turns to Nora; Nora nods."
    assert read.characters == ("Nora", "Ben", "Ivo")  # people alone; of three shots, of two, of one
    assert read.descriptions["the brass lamp"] == "Lamp of brass"


def without(field: str) -> dict[str, Any]:
    return {key: value for key, value in episode().items() if key != field}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"story_name": "../up"}, "cannot be the name of a folder"),
        ({"scenes": None}, "scenes: none; it is a list"),
        ({"entity_schedule": {"1:1": {}}}, "differ in 1:2, 1:3, 2:1, 2:2"),
        ({"entity_descriptions": {"Character 1": {}}}, "name: none; it is a str"),
        (
            {"entity_schedule": episode()["entity_schedule"] | {"1:1": {"characters": "Nora"}}},
            "list of names",
        ),
        ({"scenes": [episode()["scenes"][0] | {"cut": [True]}]}, "3 video_prompts, 1 cut"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_episode(write_episode(tmp_path / "e.json", **changes))


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        read_episode(tmp_path / "e.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_episode(tmp_path / "none.json")
