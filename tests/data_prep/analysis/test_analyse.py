"""A clip through everything, on real faces: insightface's group picture of six, panned, cut and broken."""

import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.analysis.analyse import analyse
from data_prep.analysis.store import save
from data_prep.config import (
    DecodeConfig,
    FaceConfig,
    PrepareConfig,
    ShotConfig,
    UnusualConfig,
    WindowConfig,
)
from data_prep.decode import decode_mp4, decoder_versions
from data_prep.records import AnalysedClip, Clip, FaceTrack
from data_prep.tracks import iou

SMALL = PrepareConfig(windows=WindowConfig(num_frames=5, stride=2, hop=10))
AS_IT_IS = replace(SMALL, decode=DecodeConfig(unusual=UnusualConfig(variable_rate="read")))
SIZE_PX = (640, 432)


def clip_of(path: Path) -> Clip:
    return Clip("made", "source", str(path), 0.0, 1.0, 25.0, *SIZE_PX)


@pytest.fixture(scope="module")
def group() -> np.ndarray:
    """u8[432,640,3] RGB of six people."""
    import insightface

    path = Path(insightface.__file__).parent / "data" / "images" / "t1.jpg"
    return cv2.cvtColor(
        cv2.resize(cv2.imread(str(path)), SIZE_PX, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB
    )


def panned(image: np.ndarray, num_frames: int, step_px: float) -> list[np.ndarray]:
    """The picture shifted right by ``step_px`` a frame."""
    shifts = [np.array([[1, 0, n * step_px], [0, 1, 0]], np.float32) for n in range(num_frames)]
    return [cv2.warpAffine(image, shift, SIZE_PX, borderMode=cv2.BORDER_REPLICATE) for shift in shifts]


def scenery(num_frames: int) -> list[np.ndarray]:
    y, x = np.mgrid[0 : SIZE_PX[1], 0 : SIZE_PX[0]]
    ramp = np.stack([x / 3, y / 2, 255 - x / 3], -1).clip(0, 255).astype(np.uint8)
    return [np.roll(ramp, n, 1) for n in range(num_frames)]


@pytest.fixture(scope="module")
def two_shots(face_home, make_video, group) -> tuple[Path, AnalysedClip]:
    """18 frames of the group sliding right, then 12 of it mirrored and still."""
    path = make_video(images=panned(group, 18, 1.5) + panned(group[:, ::-1], 12, 0.0), crf="14")
    return path, analyse(clip_of(path), SMALL)


def test_six_people_in_two_shots(two_shots):
    _, analysed = two_shots
    assert [(s.start, s.end) for s in analysed.shots] == [(0, 18), (18, 30)]
    assert (analysed.width_px, analysed.height_px, analysed.decoder) == (*SIZE_PX, decoder_versions()["pyav"])
    np.testing.assert_allclose(analysed.times_s, np.arange(30) / 25, atol=1e-5)
    by_shot = [[t for t in analysed.tracks if t.shot == shot] for shot in (0, 1)]
    assert [len(tracks) for tracks in by_shot] == [6, 6]
    assert {len(t.frames) for t in by_shot[0]} == {18} and {len(t.frames) for t in by_shot[1]} == {12}
    for track in by_shot[0]:
        moved = (track.boxes_px[-1] - track.boxes_px[0])[[0, 2]].mean()
        assert moved == pytest.approx(17 * 1.5, abs=5)
        assert track.embedded[0] and 0 < track.embedded.sum() <= 6
    similarity = np.array([[a.embedding @ b.embedding for b in by_shot[1]] for a in by_shot[0]])
    assert sorted(similarity.argmax(1).tolist()) == [0, 1, 2, 3, 4, 5]
    assert (np.sort(similarity, 1)[:, -2] < 0.4).all()  # nobody looks like two of the others


def test_windows_show_the_frames_and_label_the_faces(two_shots):
    _, analysed = two_shots
    assert [(w.shot, w.frames.tolist()) for w in analysed.windows] == [
        (0, [0, 2, 4, 6, 8]),
        (1, [18, 20, 22, 24, 26]),
    ]
    for window in analysed.windows:
        assert window.track_map.shape == (5, 96, 160) and len(window.tracks) == 6
        assert decode_mp4(window.mp4).shape == (5, 96, 160, 3)
        assert set(np.unique(window.track_map).tolist()) == set(range(7))
        for slot, track_id in enumerate(window.tracks, 1):
            track = next(t for t in analysed.tracks if t.id == track_id)
            assert label_iou(window, slot, track) > 0.6


def label_iou(window, slot: int, track: FaceTrack) -> float:
    """Bounds of the label in the window's first frame against the box, in pixels of the picture.

    640×432 is higher than the bucket's 5:3: the middle 384 rows are shown, four times smaller.
    """
    y, x = np.nonzero(window.track_map[0] == slot)
    bounds = np.array([x.min(), y.min() + 6, x.max() + 1, y.max() + 7], np.float32) * 4
    return float(iou(bounds[None], track.boxes_px[[track.row(int(window.frames[0]))]])[0, 0])


def test_the_same_clip_gives_the_same_bytes(two_shots, tmp_path):
    path, first = two_shots
    contents = []
    for name, analysed in [("one", first), ("two", analyse(clip_of(path), SMALL))]:
        (tmp_path / name).mkdir()
        save(analysed, tmp_path / name)
        contents.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1]


def test_detecting_every_third_frame_sees_the_same_people(two_shots):
    path, every = two_shots
    sparse = analyse(clip_of(path), replace(SMALL, faces=FaceConfig(detect_every=3, max_travel=9)))
    assert [t.shot for t in sparse.tracks] == [0] * 6 + [1] * 6
    for track in sparse.tracks:
        looked = [0, 3, 6, 9, 12, 15, 17] if track.shot == 0 else [18, 21, 24, 27, 29]  # the last one always
        assert track.frames[track.scores > 0].tolist() == looked
        assert len(track.frames) == (18 if track.shot == 0 else 12)
        overlaps = [
            max(iou(box[None], t.boxes_px[[t.row(f)]])[0, 0] for t in every.tracks if t.shot == track.shot)
            for f, box in zip(track.frames.tolist(), track.boxes_px, strict=True)
        ]
        assert min(overlaps) > 0.8


def test_references_are_candidates_of_the_track_itself(two_shots):
    _, analysed = two_shots
    for track in analysed.tracks:
        assert len(track.crops) == len(track.crop_frames) <= 12
        assert set(track.crop_frames.tolist()) <= set(track.frames[track.embedded].tolist())
    assert sum(len(t.crops) > 0 for t in analysed.tracks) >= 8


def test_the_ledger_has_the_numbers_of_every_track_and_frame(two_shots):
    _, analysed = two_shots
    kept = [d for d in analysed.decisions if (d.kind, d.fate) == ("track", "kept")]
    assert [d.item for d in kept] == [t.id for t in analysed.tracks]
    assert re.match(
        r"18 frames, \d+ px, sharpness \d+, yaw -?\d+ to -?\d+, pitch -?\d+ to -?\d+, roll -?\d+ to -?\d+, covered "
        r"\d of \d, best quality 0\.\d\d$",
        kept[0].detail,
    )
    assert analysed.pictures is not None and len(analysed.pictures.clipped) == 30
    assert np.nanmean(analysed.pictures.motion_px[:18]) == pytest.approx(1.5, abs=0.5)
    assert np.nanmean(analysed.pictures.motion_px[18:]) < 0.1 and len(analysed.pictures.stillest_px) == 2


def test_cuts_that_are_known_late_give_the_same_clip(two_shots):
    path, first = two_shots
    late = analyse(clip_of(path), replace(SMALL, shots=ShotConfig(detector="adaptive")))
    assert late.shots == first.shots
    assert [(w.shot, w.frames.tolist()) for w in late.windows] == [
        (w.shot, w.frames.tolist()) for w in first.windows
    ]
    for one, other in zip(first.tracks, late.tracks, strict=True):
        np.testing.assert_array_equal(one.boxes_px, other.boxes_px)


def test_a_clip_without_faces_is_dropped_with_its_rule(face_home, make_video):
    analysed = analyse(clip_of(make_video(images=scenery(12))), SMALL)
    assert (analysed.tracks, analysed.windows, len(analysed.times_s)) == ((), (), 12)
    assert [(d.item, d.kind, d.fate, d.rule) for d in analysed.decisions] == [
        ("made", "clip", "dropped", "no_face")
    ]


@pytest.mark.parametrize("kept", [0.6, 0.0])
def test_a_broken_file_is_dropped_with_its_rule(kept, make_video):
    path = make_video(images=scenery(12), container={"movflags": "+faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    analysed = analyse(clip_of(path), SMALL)
    assert (analysed.tracks, analysed.windows, analysed.shots, len(analysed.times_s)) == ((), (), (), 0)
    (decision,) = analysed.decisions
    assert (decision.kind, decision.fate, decision.stage) == ("clip", "dropped", "analyse")
    assert decision.rule == ("truncated" if kept else "unreadable")


def test_windows_of_uneven_time_are_dropped(face_home, make_video, group):
    pts = [n * 40 for n in range(14)] + [520 + n * n * 60 for n in range(1, 15)]
    analysed = analyse(clip_of(make_video(images=panned(group, 28, 0.5), pts=pts)), AS_IT_IS)
    assert [w.frames[0] for w in analysed.windows] == [0]
    assert [(d.item, d.rule) for d in analysed.decisions if d.kind == "window"] == [
        ("made-w001", "uneven_rate")
    ]
    np.testing.assert_allclose(analysed.times_s * 1000, pts, atol=1e-6)


def test_two_people_who_cross_keep_one_track_each(footage):
    """The crossing of the demo footage, against its ground truth."""
    with np.load(footage / "truth" / "cafe-03.npz") as truth:
        boxes_px, visibility = truth["boxes_px"], truth["visibility"]
    assert (visibility.min(0) == 0).any()  # somebody is hidden completely
    analysed = analyse(replace(clip_of(footage / "clips" / "cafe-03.mp4"), id="cafe-03"), PrepareConfig())
    persons = []
    for track in analysed.tracks:
        overlap = np.stack(
            [iou(box[None], boxes_px[f])[0] for f, box in zip(track.frames, track.boxes_px, strict=True)]
        )
        assert (overlap.max(1) > 0.2).all()
        persons.append(set(overlap.argmax(1).tolist()))
    assert sorted(map(sorted, persons)) == [[0], [1]]
    for person in (0, 1):
        seen = set(analysed.tracks[persons.index({person})].frames.tolist())
        assert set(np.flatnonzero(visibility[:, person] > 0.9).tolist()) <= seen
        assert not seen & set(np.flatnonzero(visibility[:, person] == 0).tolist())
