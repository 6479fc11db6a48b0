"""Clips that are small text files, and an analysis that paints what they say: each test of the flow is seconds.

Run as a program it prepares such a corpus, whole or one part of it, in a process that can be killed.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.config import FaceConfig, PackConfig, PrepareConfig, ReferenceConfig, RunConfig
from data_prep.flow import prepare
from data_prep.records import AnalysedClip, Clip, Decision, FaceTrack, Shot, Window
from data_prep.running.parts import Part, prepare_part

DIM, FRAMES = 32, 96


def quiet(stage: str, done: int, total: int) -> None:
    """Nobody watches."""


def paint(clip: Clip, config: PrepareConfig) -> AnalysedClip:
    """Analysis of a made clip: its file names the people in view, left to right, and how it misbehaves."""
    order = json.loads(Path(clip.path).read_text())
    if "ticket" in order:
        with Path(order["ticket"]).open("rb", buffering=0) as tickets:
            tickets.read(1)  # blocks until there is one
    if "log" in order:
        (Path(order["log"]) / f"{clip.id}-{time.time_ns()}").touch()
    if "pass" in order and not Path(order["pass"]).exists():
        Path(order["reached"]).open("w").close()  # blocks until somebody reads
        Path(order["wait"]).read_text()  # blocks until somebody writes
    if order.get("abort") and not Path(order["abort"]).exists():
        os.abort()
    if "spin" in order:
        hashlib.pbkdf2_hmac("sha256", b"", b"", order["spin"])  # as long as a network would take
    if not order["people"]:
        return AnalysedClip(
            clip, 0, 0, np.zeros(0), (), (), (), (Decision(clip.id, "clip", "dropped", "analyse", "no_face"),)
        )
    rng = np.random.default_rng(int(hashlib.sha256(clip.id.encode()).hexdigest()[:8], 16))
    tracks = tuple(paint_track(clip.id, at, person, rng) for at, person in enumerate(order["people"]))
    windows = []
    for index in range(2):
        track_map = np.zeros((5, 48, 80), np.uint8)
        for at in range(len(tracks)):
            track_map[:, 10:30, 4 + 25 * at : 22 + 25 * at] = at + 1
        frames = np.arange(5, dtype=np.int32) * 2 + 40 * index
        windows.append(Window(index, 0, frames, rng.bytes(20_000), track_map, tuple(t.id for t in tracks)))
    return AnalysedClip(clip, 320, 192, np.arange(FRAMES) / 24, (Shot(0, 0, FRAMES),), tracks, tuple(windows))


def paint_track(clip_id: str, at: int, person: int, rng: np.random.Generator) -> FaceTrack:
    frames = np.arange(FRAMES, dtype=np.int32)
    embedded = frames % 8 == 0
    faces = np.eye(DIM)[person] + rng.normal(size=(FRAMES, DIM)) * 0.11
    faces = (faces / np.linalg.norm(faces, axis=1, keepdims=True)) * embedded[:, None]
    return FaceTrack(
        id=f"{clip_id}-t{at:03d}",
        clip_id=clip_id,
        shot=0,
        frames=frames,
        boxes_px=np.tile(np.array([0, 0, 80, 90], np.float32), (FRAMES, 1)),
        landmarks_px=np.zeros((FRAMES, 5, 2), np.float32),
        ovals_px=np.zeros((FRAMES, 4, 2), np.float32),
        scores=np.full(FRAMES, 0.95, np.float32),
        norms=np.asarray(5.0 * embedded, np.float32),
        sharpness=np.asarray(100.0 * embedded, np.float32),
        yaw_deg=np.asarray(rng.uniform(-30, 30, FRAMES), np.float32),
        pitch_deg=np.asarray(rng.uniform(-30, 30, FRAMES), np.float32),
        roll_deg=np.asarray(rng.uniform(-30, 30, FRAMES), np.float32),
        embedded=embedded,
        embeddings=np.asarray(faces, np.float32),
        crop_frames=frames[embedded][::3],
        crops=rng.integers(0, 256, (4, 112, 112, 3), np.uint8),
    )


CAST = [[0], [1], [0, 1], [2], [0, 2], [1, 2], []]


def make_corpus(folder: Path, **orders: dict[str, Any]) -> Path:
    """Seven clips in three sources; ``clip3={"abort": ...}`` adds to what a clip's file says."""
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    rows = []
    for at, people in enumerate(CAST):
        name = f"clip{at}"
        order = {"people": people, **orders.get(name, {})}
        (folder / "clips" / f"{name}.mp4").write_text(json.dumps(order))
        rows.append(row(name, f"source{at % 3}", at * 10.0))
    write_manifest(folder / "short.csv", rows)
    return folder


def row(name: str, source: str, start_s: float) -> dict[str, object]:
    return {
        "clip_id": f"{name}.mp4",
        "url": source,
        "fps": 24,
        "frame_width": 320,
        "frame_height": 192,
        "start_time": start_s,
        "end_time": start_s + 4.0,
        "Brief Description": "People talk.",
    }


def write_manifest(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def make_many(folder: Path, count: int, **order: Any) -> Path:
    """That many clips in sources of eight, all of which do the same."""
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    rows = []
    for at in range(count):
        name, people = f"clip{at:03d}", CAST[at % 6]
        (folder / "clips" / f"{name}.mp4").write_text(json.dumps({"people": people, **order, "at": at}))
        rows.append(row(name, f"source{at // 8}", at % 8 * 10.0))
    write_manifest(folder / "short.csv", rows)
    return folder


def config_for(
    corpus: Path,
    output: Path,
    *,
    max_quarantined: float = 0.0,
    num_workers: int = 2,
    max_attempts: int = 2,
) -> PrepareConfig:
    return PrepareConfig(
        manifest=str(corpus / "short.csv"),
        clips=str(corpus / "clips"),
        output=str(output),
        faces=FaceConfig(),
        references=ReferenceConfig(min_count=2, max_count=3),
        pack=PackConfig(samples_per_shard=3),
        run=RunConfig(num_workers=num_workers, max_attempts=max_attempts, max_quarantined=max_quarantined),
    )


def hashes(output: Path) -> dict[str, str]:
    """sha256 of every public file."""
    public = [p for p in output.rglob("*") if p.is_file() and ".work" not in p.parts]
    return {str(p.relative_to(output)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(public)}


def analyses(output: Path) -> dict[str, int]:
    """When each clip's analysis was committed; what a killed run left half-written does not count."""
    whole = [p for p in (output / ".work").glob("*") if p.is_dir() and not p.name.startswith(".")]
    return {p.name.rsplit("-", 1)[0]: p.stat().st_mtime_ns for p in whole}


def start(
    corpus: Path, output: Path, part: str = "", num_workers: int = 2, max_attempts: int = 2, ray: str = ""
) -> subprocess.Popen[str]:
    """This module as a program of its own, with a Ray of its own or the one whose address is given."""
    root = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root)}
    environment.pop("RAY_ADDRESS", None)
    if ray:
        environment["RAY_ADDRESS"] = ray
    arguments = [str(corpus), str(output), str(num_workers), str(max_attempts), part]
    command = [sys.executable, "-m", "tests.painted_clips", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=root, stdout=subprocess.DEVNULL, stderr=pipe, env=environment, text=True
    )


def main(corpus: str, output: str, num_workers: str, max_attempts: str, part: str) -> None:
    """Prepare, whole or a part, and say how much of the part had to be done."""
    config = config_for(
        Path(corpus), Path(output), num_workers=int(num_workers), max_attempts=int(max_attempts)
    )
    if part:
        prepare_part(config, Part.parse(part), quiet, analyse_one=paint)
    else:
        prepare(config, quiet, analyse_one=paint)


if __name__ == "__main__":
    main(*sys.argv[1:])
