"""Demo footage with ground truth: short clips in which known people appear, cross and come back in other takes.

Nothing here is committed or downloaded as footage: the clips are composed on the machine that needs them, from
media in published packages. Stage names are made up; rights are unclear; never pass the clips on.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from data_prep.faces import analyser_for
from data_prep.faces.matte import fetch_matte
from data_prep.footage import backdrop, cast, media, places, shotlist
from data_prep.footage.compose import Stage, TrueFrame, people_of, render
from data_prep.footage.cutout import cut_out
from data_prep.footage.film import write_film
from data_prep.footage.scenes import FPS, HEIGHT_PX, WIDTH_PX, Scene
from data_prep.footage.table import write_table
from data_prep.footage.truth import ClipTruth
from data_prep.records import Json, Progress

__all__ = ["ClipTruth", "make_footage"]

VERSION = 3  # of the code that draws; a change of the shot list is noticed by itself
MARKER = "footage.json"
TABLE = "short.csv"
DET_SIZE = (256, 256)  # the pictures that people are cut out of are 176 to 1280 px wide, with faces to match


def make_footage(folder: Path, home: Path, on_progress: Progress) -> None:
    """Make ``folder`` hold clips/*.mp4, short.csv, truth/*.npz and, written last, footage.json with their hashes.

    Does nothing where the folder is complete and of this version. ``home`` is the user's cache: the face pack
    "embedded" must be installed there, and media are kept there. Everything is made aside and renamed at the
    end, so a kill leaves the old folder or none. Raises InputError where media cannot be fetched.
    """
    if _is_current(folder):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two processes that want the same footage: the second finds it made
        if not _is_current(folder):
            _replace(folder, home, on_progress)


def _replace(folder: Path, home: Path, on_progress: Progress) -> None:
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _build(aside, home, on_progress)
        aside.chmod(0o755)  # mkdtemp gives 0700; a cache may be shared
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def prepare_stage(scenes: tuple[Scene, ...], home: Path, on_progress: Progress) -> Stage:
    """Fetch the media of some scenes and cut out the people who play in them."""
    found = media.collect(home)
    finder, matte = analyser_for("embedded", DET_SIZE, home), fetch_matte()
    names = sorted({actor.take for scene in scenes for shot in scene.shots for actor in shot.actors})
    cutouts = {}
    for done, name in enumerate(names, 1):
        cutouts[name] = cut_out(cast.TAKES[name], found, finder, matte)
        on_progress("cut out", done, len(names))
    views = sorted({shot.backdrop for scene in scenes for shot in scene.shots})
    scenery = {name: backdrop.build(places.BACKDROPS[name], found) for name in views}
    return Stage(cutouts, scenery, backdrop.wood(found))


def shoot(scene: Scene, stage: Stage, film: Path, truth: Path) -> float:
    """Render one scene to an mp4 and its truth; returns the mean absolute difference of successive frames."""
    seen: list[TrueFrame] = []
    moved: list[float] = []

    def images() -> Iterator[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
        before = None
        for frame in render(scene, stage):
            seen.append(TrueFrame(frame.image[:0], frame.boxes_px, frame.visibility, frame.labels))
            if before is not None:
                moved.append(float(cv2.absdiff(before, frame.image).mean()))
            before = frame.image
            yield frame.image

    write_film(film, images(), (WIDTH_PX, HEIGHT_PX), FPS)
    starts = np.cumsum([0, *(shot.num_frames for shot in scene.shots[:-1])])
    ClipTruth(
        people_of(scene),
        np.stack([f.boxes_px for f in seen]),
        np.stack([f.visibility for f in seen]),
        np.stack([f.labels for f in seen]),
        starts.astype(np.int32),
    ).save(truth)
    return float(np.mean(moved))


def _build(folder: Path, home: Path, on_progress: Progress) -> None:
    scenes = shotlist.SCENES
    stage = prepare_stage(scenes, home, on_progress)
    for name in ("clips", "truth"):
        (folder / name).mkdir()
    motion = {}
    for done, scene in enumerate(scenes, 1):
        film, truth = folder / "clips" / f"{scene.clip_id}.mp4", folder / "truth" / f"{scene.clip_id}.npz"
        motion[scene.clip_id] = shoot(scene, stage, film, truth)
        on_progress("footage", done, len(scenes))
    write_table(folder / TABLE, scenes, motion)
    (folder / MARKER).write_text(json.dumps(_summary(folder, scenes), indent=2) + "\n")


def _summary(folder: Path, scenes: tuple[Scene, ...]) -> Json:
    people = sorted({name for scene in scenes for name in people_of(scene)})
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        "recipe": _recipe(),
        "added_character": shotlist.ADDED_CHARACTER,
        "people": {name: [s.clip_id for s in scenes if name in people_of(s)] for name in people},
        "files": {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files},
    }


def _recipe() -> str:
    """Changes whenever the same call would draw other clips."""
    parts = (
        VERSION,
        shotlist.SCENES,
        places.BACKDROPS,
        cast.TAKES,
        cast.PEOPLE,
        media.FETCHED,
        media.INSTALLED,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _is_current(folder: Path) -> bool:
    marker = folder / MARKER
    return marker.is_file() and json.loads(marker.read_text())["recipe"] == _recipe()
