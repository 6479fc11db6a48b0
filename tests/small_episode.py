"""An episode as EntityBench writes them, in our own words: two scenes, five shots, three people, a place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ENTITIES = {
    "Character 1": ("Nora", "Woman with a grey plait"),
    "Character 2": ("Ben", "Young man in a blue coat."),
    "Character 5": ("Ivo", "Old man with a cane"),
    "Location 1": ("The Ferry", "Deck of a small ferry"),
    "Object 1": ("the brass lamp", "Lamp of brass"),
}
SHOTS: dict[str, tuple[bool, str, list[str], list[str], list[str]]] = {
    "1:1": (True, "Nora lifts the brass lamp.", ["Nora"], ["The Ferry"], ["the brass lamp"]),
    "1:2": (False, "Ben turns to Nora; Nora nods.", ["Ben", "Nora"], ["The Ferry"], []),
    "1:3": (False, "Ivo waits beside Nora.", ["Ivo", "Nora"], ["The Ferry"], []),
    "2:1": (True, "Ben runs along the shore.", ["Ben"], [], []),
    "2:2": (True, "The shore lies empty.", [], [], []),
}


def episode() -> dict[str, Any]:
    """As read from JSON; a new one each time."""
    scenes: dict[int, dict[str, Any]] = {}
    for name, (cut, action, *_) in SHOTS.items():
        number = int(name.split(":")[0])
        empty: dict[str, Any] = {
            "scene_num": number,
            "video_prompts": [],
            "cut": [],
            "action_descriptions": [],
        }
        scene = scenes.setdefault(number, empty)
        scene["video_prompts"].append(f"Described at length.\n{action}")
        scene["action_descriptions"].append(action)
        scene["cut"].append(cut)
    schedule = {
        name: {"characters": people, "places": places, "objects": things}
        for name, (_, _, people, places, things) in SHOTS.items()
    }
    described = {
        label: {"name": name, "label": label, "description": text} for label, (name, text) in ENTITIES.items()
    }
    return {
        "story_name": "ferry__run1__T40",
        "story_overview": "A crossing.",
        "scenes": list(scenes.values()),
        "entity_schedule": schedule,
        "entity_descriptions": described,
        "_window_shot_ids": list(SHOTS),
    }


def write_episode(path: Path, **changes: Any) -> Path:
    """One on disk."""
    path.write_text(json.dumps({**episode(), **changes}))
    return path
