"""The demo footage as it stands on this machine: complete, as promised, and true."""

from __future__ import annotations

import csv
import hashlib
import json
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from data_prep.config import IngestConfig
from data_prep.faces import analyser_for
from data_prep.footage import ClipTruth, make_footage, prepare_stage, shoot
from data_prep.footage.shotlist import SCENES
from data_prep.ingest.manifest import read_clips
from data_prep.records import F32, Json

MAIN_CAST = {"Martin", "Victor", "Oscar", "Bruno", "Toby", "Nora"}
COLUMNS = (
    *("clip_id", "url", "fps", "frame_width", "frame_height", "start_frame", "end_frame", "total_frames"),
    *("start_time", "end_time", "duration", "vtss_score", "motion_score", "video_clip_score"),
    *(
        "Brief Description",
        "Detailed Description",
        "Theme Description",
        "Shot Type",
        "Summarized Description",
    ),
    *("Background", "Style", "Camera Movement", "Lighting", "Video Atmosphere"),
)


def _nothing(stage: str, done: int, total: int) -> None:
    raise AssertionError(f"worked on {stage}")


def _truth(footage: Path, clip_id: str) -> ClipTruth:
    return ClipTruth.load(footage / "truth" / f"{clip_id}.npz")


@pytest.fixture(scope="module")
def summary(footage: Path) -> Json:
    loaded: Json = json.loads((footage / "footage.json").read_text())
    return loaded


def test_the_summary_knows_every_file(footage: Path, summary: Json) -> None:
    files = {str(p.relative_to(footage)) for p in footage.rglob("*") if p.is_file()} - {"footage.json"}
    assert files == set(summary["files"])
    for name, sha256 in summary["files"].items():
        assert hashlib.sha256((footage / name).read_bytes()).hexdigest() == sha256


def test_the_second_call_does_nothing(footage: Path, tmp_path: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in footage.rglob("*")}
    make_footage(footage, tmp_path / "no-home", _nothing)
    assert {p: p.stat().st_mtime_ns for p in footage.rglob("*")} == before


def test_a_scene_is_made_of_the_same_bytes_again(
    footage: Path, face_home: Path, summary: Json, tmp_path: Path
) -> None:
    scene = next(s for s in SCENES if s.clip_id == "launch-01")
    stage = prepare_stage((scene,), face_home, lambda *_: None)
    shoot(scene, stage, tmp_path / "film.mp4", tmp_path / "truth.npz")
    for made, kept in (("film.mp4", "clips/launch-01.mp4"), ("truth.npz", "truth/launch-01.npz")):
        assert hashlib.sha256((tmp_path / made).read_bytes()).hexdigest() == summary["files"][kept]


def test_the_table_has_every_column_and_our_reader_takes_it(footage: Path) -> None:
    table = footage / "short.csv"
    assert table.read_bytes().startswith(b"\xef\xbb\xbf")
    with table.open(encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert set(COLUMNS) <= set(rows[0])
    assert all(row[column] for row in rows for column in COLUMNS)
    clips, decisions = read_clips(str(table), str(footage / "clips"), IngestConfig())
    assert [c.id for c in clips] == [s.clip_id for s in SCENES]
    assert not decisions


def test_captions_name_who_is_there(footage: Path) -> None:
    clips, _ = read_clips(str(footage / "short.csv"), str(footage / "clips"), IngestConfig())
    for clip in clips:
        for name in _truth(footage, clip.id).people:
            assert name in clip.captions.detailed
            assert name in clip.captions.brief + clip.captions.summarized


def test_the_cast_is_as_promised(footage: Path, summary: Json) -> None:
    casts = [_truth(footage, scene.clip_id).people for scene in SCENES]
    assert len(casts) >= 14
    assert all(len(summary["people"][name]) >= 4 for name in MAIN_CAST)
    assert sum(2 <= len(people) <= 3 for people in casts) >= 6
    assert casts.count(()) == 1
    assert summary["added_character"] in MAIN_CAST


def test_one_face_is_hidden_completely_and_comes_back(footage: Path) -> None:
    truth = _truth(footage, "cafe-03")
    nora = truth.visibility[:, truth.people.index("Nora")]
    hidden = np.flatnonzero(nora < 0.02)
    assert len(hidden) >= 5
    assert nora[0] > 0.95
    assert nora[-1] > 0.95


def test_the_cuts_are_where_the_truth_says(footage: Path) -> None:
    """Oracle: the two largest frame differences of the decoded clip."""
    with av.open(str(footage / "clips" / "wall-01.mp4")) as film:
        frames = [f.to_ndarray(format="gray").astype(np.int16) for f in film.decode(video=0)]
    change = [float(np.abs(b - a).mean()) for a, b in pairwise(frames)]
    cuts = sorted(np.argsort(change)[-2:] + 1)
    assert [0, *cuts] == list(_truth(footage, "wall-01").shot_starts)


def test_labels_boxes_and_visibility_agree(footage: Path) -> None:
    for scene in SCENES:
        truth = _truth(footage, scene.clip_id)
        assert truth.labels.shape[0] == scene.num_frames == len(truth.boxes_px)
        for frame in range(0, scene.num_frames, 20):
            for k in range(len(truth.people)):
                ys, xs = np.nonzero(truth.labels[frame] == k + 1)
                assert (len(xs) > 0) == bool(truth.visibility[frame, k] > 0)
                if len(xs):
                    x1, y1, x2, y2 = truth.boxes_px[frame, k]
                    assert x1 - 1 <= xs.min() <= xs.max() <= x2 + 1
                    assert y1 - 1 <= ys.min() <= ys.max() <= y2 + 1


def test_a_detector_sees_the_faces_that_the_truth_has_and_no_others(footage: Path, face_home: Path) -> None:
    """Every 36th frame: each face that is visible is found (IoU), and nothing else is."""
    analyser = analyser_for("embedded", (640, 384), face_home)
    overlaps: list[float] = []
    for scene in SCENES:
        truth = _truth(footage, scene.clip_id)
        with av.open(str(footage / "clips" / f"{scene.clip_id}.mp4")) as film:
            for frame, picture in enumerate(film.decode(video=0)):
                if frame % 36:
                    continue
                seen = np.array([f.box_px for f in analyser.detect(picture.to_ndarray(format="rgb24"))])
                visible = truth.visibility[frame] > 0.9
                iou = _iou(truth.boxes_px[frame], seen.reshape(-1, 4))
                overlaps += [float(row.max()) for row in iou[visible]]
                assert all(column.max() > 0.2 for column in iou.T), (
                    f"{scene.clip_id} {frame}: a face too many"
                )
    assert min(overlaps) > 0.4
    assert np.mean(overlaps) > 0.6


def _iou(a: F32, b: F32) -> F32:
    """f32[A,B] of boxes f32[A,4] and f32[B,4]; 0 where a box is NaN."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(-1)
    area_a, area_b = ((box[:, 2:] - box[:, :2]).prod(-1) for box in (a, b))
    return np.asarray(np.nan_to_num(both / (area_a[:, None] + area_b[None] - both)), np.float32)
