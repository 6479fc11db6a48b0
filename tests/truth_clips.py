"""Clips of known people in seeded, random scenes, with the truth of who is where on every frame.

The demo's footage is staged to look well; these are staged to be hard: people walk past each other and hide each
other, change places, leave the view and come back at the other side, run through it, are cut away from and cut back
to. The machinery is the footage's own (cut-out takes of real people on scenery), so only the scenes are made here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_prep.footage import prepare_stage, shoot
from data_prep.footage.cast import TAKES
from data_prep.footage.places import BACKDROPS
from data_prep.footage.scenes import FPS, Actor, Pose, Scene, Shot, still
from data_prep.footage.table import write_table

PEOPLE = ("Martin", "Victor", "Oscar", "Bruno", "Toby", "Nora", "Edgar", "Elena")
CLIPS_PER_SOURCE = 2
BEHIND = 260.0  # px to the side of the view, where nobody is seen
MOVERS = {name: take for name, take in TAKES.items() if take.cut in ("matte", "blue_screen")}

Rng = np.random.Generator


def truth_scenes(num_clips: int, seed: int) -> tuple[Scene, ...]:
    """Scenes of every kind in turn, in sources of two clips with one cast each, every third one of three people."""
    rng = np.random.default_rng(seed)
    scenes = []
    kinds = list(KINDS)
    for number in range(num_clips):
        source, at = divmod(number, CLIPS_PER_SOURCE)
        people = [PEOPLE[(source + k * 3) % len(PEOPLE)] for k in range(2 + (source % 3 == 2))]
        kind = kinds[number % len(kinds)]
        scenes.append(
            Scene(
                f"truth-{number:02d}-{kind}",
                f"truth-{source:02d}",
                60.0 * at,
                KINDS[kind](people, rng),
                f"{', '.join(people)}: {kind}.",
                f"A test scene of the kind {kind!r}.",
            )
        )
    return tuple(scenes)


def make_truth_clips(folder: Path, home: Path, num_clips: int = 24, seed: int = 0) -> tuple[Scene, ...]:
    """Write clips/*.mp4, truth/*.npz (``ClipTruth``) and short.csv into ``folder``; the scenes, in their order."""
    scenes = truth_scenes(num_clips, seed)
    stage = prepare_stage(scenes, home, lambda *_: None)
    for name in ("clips", "truth"):
        (folder / name).mkdir(parents=True)
    motion = {}
    for scene in scenes:
        film, truth = folder / "clips" / f"{scene.clip_id}.mp4", folder / "truth" / f"{scene.clip_id}.npz"
        motion[scene.clip_id] = shoot(scene, stage, film, truth)
    write_table(folder / "short.csv", scenes, motion)
    return scenes


def _take(person: str, rng: Rng) -> str:
    """One of a person's takes that can walk about."""
    return str(rng.choice(sorted(name for name, take in MOVERS.items() if take.people == (person,))))


def _actor(person: str, path: tuple[Pose, ...], rng: Rng) -> Actor:
    sway = float(rng.uniform(6, 16)) if TAKES[take := _take(person, rng)].num_frames == 0 else 0.0
    return Actor(take, path, sway_deg=sway, phase=float(rng.uniform(0, 1)))


def _places(count: int, rng: Rng) -> list[tuple[float, float, float]]:
    """x, y and face height of people who sit side by side."""
    xs = np.linspace(240, 720, count) + rng.uniform(-30, 30, count)
    return [(float(x), float(rng.uniform(250, 320)), float(rng.uniform(110, 200))) for x in xs]


def _seated(people: list[str], rng: Rng) -> list[Actor]:
    return [_actor(p, still(*at), rng) for p, at in zip(people, _places(len(people), rng), strict=True)]


def _shot(num_frames: int, actors: list[Actor], rng: Rng) -> Shot:
    return Shot(num_frames, str(rng.choice(sorted(set(BACKDROPS) - {"meadow"}))), tuple(actors))


def _sit(people: list[str], rng: Rng) -> tuple[Shot, ...]:
    return (_shot(84, _seated(people, rng), rng),)


def _hide(people: list[str], rng: Rng) -> tuple[Shot, ...]:
    """The last one walks past the others, close to the camera, and hides each completely."""
    y, size = float(rng.uniform(310, 350)), float(rng.uniform(230, 270))
    path = (Pose(0, -BEHIND, y, size), Pose(0.5, 480, y, size, 2), Pose(1, 960 + BEHIND, y, size))
    return (_shot(120, [*_seated(people[:-1], rng), _actor(people[-1], path, rng)], rng),)


def _swap(people: list[str], rng: Rng) -> tuple[Shot, ...]:
    """The first two change places, one in front of the other."""
    places = _places(len(people), rng)
    actors = [_actor(p, still(*at), rng) for p, at in zip(people[2:], places[2:], strict=True)]
    for person, start, end in ((people[0], *places[:2]), (people[1], *places[1::-1])):
        path = (Pose(0, *start), Pose(0.25, *start), Pose(0.75, *end), Pose(1, *end))
        actors.append(_actor(person, path, rng))
    return (_shot(108, actors, rng),)


def _leave(people: list[str], rng: Rng) -> tuple[Shot, ...]:
    """The first leaves on the right and comes back on the left, two seconds later; above the view lies the way."""
    (x, y, size), *others = _places(len(people), rng)
    out, back = 960 + BEHIND, -BEHIND
    path = (
        Pose(0, x, y, size), Pose(0.15, x, y, size), Pose(0.3, out, y, size), Pose(0.4, out, -500, size),
        Pose(0.5, back, -500, size), Pose(0.6, back, y, size), Pose(0.8, x, y, size), Pose(1, x, y, size),
    )  # fmt: skip
    seated = [_actor(p, still(*at), rng) for p, at in zip(people[1:], others, strict=True)]
    return (_shot(144, [*seated, _actor(people[0], path, rng)], rng),)


def _run(people: list[str], rng: Rng) -> tuple[Shot, ...]:
    """The last runs through the view behind the others, in half a second and back."""
    y, size = float(rng.uniform(200, 240)), float(rng.uniform(90, 120))
    path = (
        Pose(0, -BEHIND, y, size), Pose(0.3, -BEHIND, y, size), Pose(0.45, 960 + BEHIND, y, size),
        Pose(0.55, 960 + BEHIND, y, size), Pose(0.75, -BEHIND, y, size), Pose(1, -BEHIND, y, size),
    )  # fmt: skip
    return (_shot(108, [_actor(people[-1], path, rng), *_seated(people[:-1], rng)], rng),)


def _cut(people: list[str], rng: Rng) -> tuple[Shot, ...]:
    """All of them, then one alone, then all in the other order."""
    alone = _actor(people[-1], still(float(rng.uniform(400, 560)), 300, 220), rng)
    return (
        _shot(40, _seated(people, rng), rng),
        _shot(36, [alone], rng),
        _shot(44, _seated(people[::-1], rng), rng),
    )


KINDS: Mapping[str, Callable[[list[str], Rng], tuple[Shot, ...]]] = {
    "sit": _sit,
    "hide": _hide,
    "swap": _swap,
    "leave": _leave,
    "run": _run,
    "cut": _cut,
}


def shortened(scene: Scene, num_frames: int) -> Scene:
    """The same scene in fewer frames per shot, for fast tests."""
    return replace(scene, shots=tuple(replace(shot, num_frames=num_frames) for shot in scene.shots))


__all__ = ["FPS", "KINDS", "PEOPLE", "make_truth_clips", "shortened", "truth_scenes"]
