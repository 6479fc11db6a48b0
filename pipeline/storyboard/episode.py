"""An episode of EntityBench (arXiv 2605.15199), read as it is: scenes of shots, cuts, and who is in which shot.

``entity_schedule`` says for each shot, SCENE:SHOT from 1, which characters, places and objects are in it;
``entity_descriptions`` describes each under a label (Character 1, Location 2, Object 3). A shot's ``cut`` is false
where it goes on from the one before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.records import InputError

KINDS = ("characters", "places", "objects")  # of the schedule


@dataclass(frozen=True)
class Shot:
    """scene, number: from 1; cut: whether it begins anew; action: what happens, without the entities' descriptions;
    characters, places, objects: names, in the schedule's order."""

    scene: int
    number: int
    cut: bool
    action: str
    characters: tuple[str, ...]
    places: tuple[str, ...]
    objects: tuple[str, ...]

    @property
    def name(self) -> str:
        """As the schedule names it."""
        return f"{self.scene}:{self.number}"


@dataclass(frozen=True)
class Episode:
    """id: what its videos' folder is called; descriptions: entity name to what it looks like, of all kinds."""

    id: str
    overview: str
    shots: tuple[Shot, ...]
    descriptions: Mapping[str, str]

    @property
    def characters(self) -> tuple[str, ...]:
        """All of them, those of more shots first, then those that come earlier."""
        counts: dict[str, int] = {}
        for shot in self.shots:
            for name in shot.characters:
                counts[name] = counts.get(name, 0) + 1
        return tuple(sorted(counts, key=lambda name: -counts[name]))  # sorting keeps who came earlier first


def read_episode(path: Path) -> Episode:
    """Reads and checks it; raises InputError naming the field that is not as EntityBench writes it."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give an episode's JSON") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); give an episode's JSON") from error
    try:
        return _episode(read)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _episode(read: Any) -> Episode:
    name = _get(read, "story_name", str)
    if not name or "/" in name or name.startswith("."):
        raise InputError(f"story_name: {name!r} cannot be the name of a folder of videos")
    schedule = _get(read, "entity_schedule", dict)
    shots = [shot for scene in _get(read, "scenes", list) for shot in _shots(scene, schedule)]
    names = [shot.name for shot in shots]
    if not shots or sorted(names) != sorted(schedule):
        odd = sorted(set(names) ^ set(schedule)) or ["nothing"]
        raise InputError(
            f"entity_schedule and scenes differ in {', '.join(odd)}; each shot is in both, as SCENE:SHOT"
        )
    described = _get(read, "entity_descriptions", dict)
    texts = {_get(row, "name", str): str(row.get("description", "")) for row in described.values()}
    return Episode(name, str(read.get("story_overview", "")), tuple(shots), texts)


def _shots(scene: Any, schedule: Mapping[str, Any]) -> list[Shot]:
    number = _get(scene, "scene_num", int)
    prompts, cuts = _get(scene, "video_prompts", list), _get(scene, "cut", list)
    actions = scene.get(
        "action_descriptions", prompts
    )  # prompts also describe who is seen for the first time
    if not len(prompts) == len(cuts) == len(actions):
        raise InputError(
            f"scene {number}: {len(prompts)} video_prompts, {len(cuts)} cut, {len(actions)} action_descriptions; "
            "they are of the same shots"
        )
    shots = []
    for k, (action, cut) in enumerate(zip(actions, cuts, strict=True), 1):
        row = schedule.get(f"{number}:{k}", {})
        characters, places, objects = (_names(row.get(kind, []), f"{number}:{k}", kind) for kind in KINDS)
        shots.append(Shot(number, k, bool(cut), " ".join(str(action).split()), characters, places, objects))
    return shots


def _names(rows: Any, shot: str, kind: str) -> tuple[str, ...]:
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise InputError(f"entity_schedule {shot}: {kind} is {rows!r}; it is a list of names")
    return tuple(dict.fromkeys(map(str, rows)))


def _get(read: Any, field: str, kind: type[Any]) -> Any:
    value = read.get(field) if isinstance(read, Mapping) else None
    if not isinstance(value, kind):
        raise InputError(
            f"{field}: {'none' if value is None else type(value).__name__}; it is a {kind.__name__}"
        )
    return value
