"""A saved analysis is the analysis, the same bytes each time, and can be read in part."""

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from data_prep.analysis.store import load, load_window, save
from data_prep.records import (
    AnalysedClip,
    Captions,
    Clip,
    Decision,
    FaceTrack,
    FrameMeasures,
    InputError,
    Shot,
    Window,
)


def made_track(number: int, num_rows: int, num_crops: int) -> FaceTrack:
    rng = np.random.default_rng(number)

    def some(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return FaceTrack(
        id=f"ä-t{number:03d}",
        clip_id="ä",
        shot=number,
        frames=np.arange(num_rows, dtype=np.int32),
        boxes_px=some(num_rows, 4),
        landmarks_px=some(num_rows, 5, 2),
        ovals_px=some(num_rows, 36, 2),
        scores=some(num_rows),
        norms=some(num_rows),
        sharpness=some(num_rows),
        yaw_deg=some(num_rows),
        pitch_deg=some(num_rows),
        roll_deg=some(num_rows),
        embedded=rng.random(num_rows) > 0.5,
        embeddings=some(num_rows, 8),
        crop_frames=np.arange(num_crops, dtype=np.int32),
        crops=rng.integers(0, 256, (num_crops, 112, 112, 3)).astype(np.uint8),
    )


@pytest.fixture
def analysed() -> AnalysedClip:
    windows = tuple(
        Window(
            i * 2,
            0,
            np.arange(i, i + 3, dtype=np.int32),
            bytes([i]) * 9,
            np.full((3, 4, 6), i, np.uint8),
            ("ä-t000",),
        )
        for i in range(2)
    )
    return AnalysedClip(
        clip=Clip("ä", "s", "/x/ä.mp4", 0.5, 1.5, 25.0, 64, 32, Captions(brief='says "hi"'), "CC", "granted"),
        width_px=64,
        height_px=32,
        times_s=np.array([0, 0.04, 0.08]),
        shots=(Shot(0, 0, 2), Shot(1, 2, 3)),
        tracks=(made_track(0, 3, 2), made_track(1, 1, 0)),
        windows=windows,
        decisions=(Decision("ä-t002", "track", "dropped", "analyse", "track_too_short", "1", "5"),),
        decoder="decord 0.6.0",
        medium="h264 yuv420p",
        fingerprint="ab",
        pictures=FrameMeasures(
            *np.arange(18, dtype=np.float32).reshape(6, 3), np.array([1, np.nan], np.float32)
        ),
    )


def assert_same(first, second) -> None:
    for field in fields(first):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        elif field.name == "pictures" and a is not None:
            assert_same(a, b)
        elif field.name in ("tracks", "windows") and a and not isinstance(a[0], str):
            assert len(a) == len(b)
            for one, other in zip(a, b, strict=True):
                assert_same(one, other)
        else:
            assert a == b


def test_what_is_loaded_is_what_was_saved(analysed, tmp_path):
    save(analysed, tmp_path)
    assert_same(load(tmp_path), analysed)
    assert_same(load_window(tmp_path, 1), analysed.windows[1])


def test_parts_that_are_not_asked_for_are_not_read(analysed, tmp_path):
    save(analysed, tmp_path)
    for name in ("crops.npz", "windows.npz", "w000.mp4", "w001.mp4"):
        (tmp_path / name).unlink()
    light = load(tmp_path, crops=False, windows=False)
    assert light.windows == () and [len(t.crops) for t in light.tracks] == [0, 0]
    np.testing.assert_array_equal(light.tracks[0].embeddings, analysed.tracks[0].embeddings)


def test_equal_records_give_equal_bytes(analysed, tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        save(analysed, folder)
    contents = [{p.name: p.read_bytes() for p in folder.iterdir()} for folder in folders]
    assert contents[0] == contents[1]


def test_a_clip_without_anything(tmp_path):
    empty = AnalysedClip(Clip("a", "s", "a.mp4", 0, 1, 25, 2, 2), 0, 0, np.zeros(0), (), (), ())
    save(empty, tmp_path)
    assert_same(load(tmp_path), empty)


def test_another_schema_is_refused(analysed, tmp_path):
    save(analysed, tmp_path)
    path = Path(tmp_path / "analysis.json")
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"schema": 99}), "utf-8")
    with pytest.raises(InputError, match=r"schema 99.*run prepare again"):
        load(tmp_path)


def test_no_pickle_is_in_it(analysed, tmp_path):
    save(analysed, tmp_path)
    for name in ("tracks.npz", "pictures.npz", "crops.npz", "windows.npz"):
        with np.load(tmp_path / name, allow_pickle=False) as arrays:
            assert all(arrays[key].dtype != object for key in arrays.files)
