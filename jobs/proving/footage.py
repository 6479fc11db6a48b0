"""The footage of the proof: short clips of two or three known people, in all places and before all backdrops.

Everything is drawn from the clip's own number, so that the same call makes the same clips. What is known about each
(who stands where) lies beside the clips and is used to name the characters that preparation finds, and for tests.
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.footage import prepare_stage, shoot
from data_prep.footage.compose import Stage
from data_prep.footage.cutout import Cutout
from data_prep.footage.scenes import FPS, HEIGHT_PX, WIDTH_PX, Actor, Pose, Scene, Shot
from data_prep.records import InputError, Progress
from jobs.proving.casting import TAKES, Cast, captions_of, shown_casts

NUM_FRAMES = 12  # half a second; training takes two frames of it, 8 apart
CENTRES_PX = {2: (275.0, 685.0), 3: (185.0, 480.0, 775.0)}  # of the frame's 960; windows show all of them
FACE_PX = {2: (255.0, 285.0), 3: (215.0, 240.0)}  # least and greatest height; 32 to 38 of a window's 64
JITTER_PX = (28.0, 14.0)  # to either side, across and down
BROAD = "Oscar"  # his suit would cover the face beside him: he stands behind
CAST = "casts.json"


@dataclass(frozen=True)
class Clip:
    """One clip: who, from left to right, before what."""

    number: int
    cast: Cast
    backdrop: str

    @property
    def id(self) -> str:
        return f"proof-{self.number:04d}"


def clips(repeats: int) -> list[Clip]:
    """Every cast that training shows, ``repeats`` times with other takes, places and sizes."""
    casts = [shown for _ in range(repeats) for shown in shown_casts()]
    return [Clip(number, cast, backdrop) for number, (cast, backdrop) in enumerate(casts)]


def scene_of(clip: Clip) -> Scene:
    """What is played in a clip."""
    draw = np.random.default_rng(clip.number)
    x = CENTRES_PX[len(clip.cast)]
    actors = [_actor(name, x[place], len(clip.cast), draw) for place, name in enumerate(clip.cast)]
    order = sorted(draw.permutation(len(actors)), key=lambda place: clip.cast[place] != BROAD)
    shot = Shot(
        NUM_FRAMES, clip.backdrop, tuple(actors[place] for place in order)
    )  # the last one stands in front
    return Scene(clip.id, f"reel-{clip.number:04d}", 0.0, (shot,), "", "")


def _actor(name: str, x: float, num_people: int, draw: np.random.Generator) -> Actor:
    take = str(draw.choice(TAKES[name]))
    size = float(draw.uniform(*FACE_PX[num_people]))
    across, down, tilt = draw.uniform(-1, 1, 3) * (*JITTER_PX, 3.0)
    start = (x + across, HEIGHT_PX / 2 + 8 + down)
    drift = draw.uniform(-8, 8, 2)
    path = (
        Pose(0, start[0], start[1], size, tilt),
        Pose(1, start[0] + drift[0], start[1] + drift[1], size, tilt),
    )
    photographed = name not in ("Martin", "Victor", "Oscar")
    return Actor(take, path, float(draw.uniform(8, 13)) * photographed, float(draw.uniform()))


def make(folder: Path, home: Path, repeats: int, on_progress: Progress) -> None:
    """Make ``folder`` hold clips/*.mp4, truth/*.npz, table.csv and casts.json; nothing where it is there.

    Raises InputError where media cannot be fetched.
    """
    wanted = clips(repeats)
    if folder.is_dir():
        if len(json.loads((folder / CAST).read_text(encoding="utf-8"))) != len(wanted):
            raise InputError(
                f"{folder}: holds other footage than repeats={repeats} makes; give another --output"
            )
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _shoot_all(aside, wanted, home, on_progress)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _shoot_all(folder: Path, wanted: Sequence[Clip], home: Path, on_progress: Progress) -> None:
    scenes = [scene_of(clip) for clip in wanted]
    stage = prepare_stage(tuple(scenes), home, on_progress)
    for name in ("clips", "truth"):
        (folder / name).mkdir()
    for done, (clip, scene) in enumerate(zip(wanted, scenes, strict=True), 1):
        film, truth = folder / "clips" / f"{clip.id}.mp4", folder / "truth" / f"{clip.id}.npz"
        shoot(scene, part_of(stage, clip.number), film, truth)
        on_progress("proof footage", done, len(wanted))
    _write_table(folder / "table.csv", wanted)
    known = {clip.id: clip.cast for clip in wanted}
    (folder / CAST).write_text(json.dumps(known, indent=1), encoding="utf-8")


def part_of(stage: Stage, number: int) -> Stage:
    """The stage with another part of each film in every clip: a shot plays a take from its first picture."""
    draw = np.random.default_rng([1, number])
    cutouts = {}
    for name, cutout in stage.cutouts.items():
        first = int(draw.integers(max(len(cutout.rgba) - NUM_FRAMES, 0) + 1))
        part = slice(first, first + NUM_FRAMES)
        cutouts[name] = Cutout(cutout.rgba[part], cutout.ovals_px[part])
    return Stage(cutouts, stage.scenery, stage.desk)


def _write_table(path: Path, wanted: Sequence[Clip]) -> None:
    """The manifest; every clip is a source of its own."""
    rows = [
        {
            "clip_id": f"{clip.id}.mp4",
            "url": f"reel-{clip.number:04d}",
            "fps": FPS,
            "frame_width": WIDTH_PX,
            "frame_height": HEIGHT_PX,
            "start_time": 0.0,
            "end_time": NUM_FRAMES / FPS,
            "Brief Description": captions_of(len(clip.cast), clip.backdrop).brief,
            "licence": "unclear; for local trials only",
        }
        for clip in wanted
    ]
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def names_of(footage: Path, shards: Path) -> dict[str, str]:
    """Character id to the name of who it is, by where people stand in the clips; all of them, each once.

    Raises InputError where preparation took two people for one, or one for two.
    """
    from data_prep.shards import ShardSet

    known: dict[str, list[str]] = json.loads((footage / CAST).read_text(encoding="utf-8"))
    votes: dict[str, Counter[str]] = {}
    opened = ShardSet.open(shards)
    for index in range(len(opened)):
        note = opened.read(index).note
        true = known[Path(note.clip_id).stem]
        middles = [np.mean([box[0] + box[2] for box in boxes if box]) for boxes in note.boxes_px]
        if len(true) == len(note.cast):
            for slot, name in zip(np.argsort(middles), true, strict=True):
                votes.setdefault(note.cast[slot].character_id, Counter())[name] += 1
    found = {character: count.most_common(1)[0][0] for character, count in votes.items()}
    wrong = sum(count.total() - max(count.values()) for count in votes.values())
    if wrong or sorted(found.values()) != sorted(TAKES):
        raise InputError(
            f"{shards}: characters {found} were found for {', '.join(TAKES)}, {wrong} faces elsewhere than known; "
            "look at castbank report of these shards"
        )
    return found
