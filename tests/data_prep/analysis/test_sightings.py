"""From single sightings to a track's arrays: what is interpolated, what is left out, which crops are kept."""

import numpy as np
import pytest

from data_prep.analysis.sightings import MAX_CROPS, THIN_AT, Crop, Sighting, Sightings, spread
from data_prep.faces.pose import Pose


def sighting(frame, x, measured=True, crop=None, **changes):
    """A 20-px face at x with the box's corners as outline."""
    box = np.array([x, 10, x + 20, 30], np.float32)
    outline = np.array([[x, 10], [x + 20, 10], [x + 20, 30], [x, 30]], np.float32) if measured else None
    vector = np.array([1, 0], np.float32) if measured else None
    values = {
        "score": 0.9,
        "pose": Pose(float(x), -float(x), 0.5),
        "norm": 3.0 * measured,
        "sharpness": 50.0 * measured,
    } | changes
    return Sighting(
        frame,
        box,
        box[:2] + np.ones((5, 2), np.float32),
        outline_px=outline,
        embedding=vector,
        crop=crop,
        **values,
    )


def track_of(sightings, looked=tuple(range(10))):
    seen = Sightings()
    for one in sightings:
        seen.add(one)
    return seen.to_track("c-t000", "c", 0, np.array(looked, np.int32))


def test_rows_between_detections_are_interpolated_and_score_nothing():
    track = track_of([sighting(0, 0), sighting(4, 40), sighting(8, 40)], looked=(0, 4, 8, 9))
    assert track.frames.tolist() == list(range(9))
    np.testing.assert_allclose(track.boxes_px[:, 0], [0, 10, 20, 30, 40, 40, 40, 40, 40])
    np.testing.assert_allclose(track.ovals_px[:, 0, 0], track.boxes_px[:, 0])
    np.testing.assert_allclose(track.landmarks_px[:, 0, 0], track.boxes_px[:, 0] + 1)
    np.testing.assert_allclose(track.yaw_deg[:3], [0, 10, 20])
    np.testing.assert_allclose(track.pitch_deg[:3], [0, -10, -20])
    np.testing.assert_allclose(track.roll_deg, 0.5)
    at = [0, 4, 8]
    for values in (track.scores, track.norms, track.sharpness):
        assert np.flatnonzero(values).tolist() == at
    assert np.flatnonzero(track.embedded).tolist() == at
    np.testing.assert_array_equal(track.embeddings[1], [0, 0])


@pytest.mark.parametrize(
    ("looked", "expected"),
    [
        (range(10), [0, 2, 3, 9]),
        ((0, 2, 3, 5, 9), [0, 1, 2, 3, 9]),
        ((0, 2, 3, 9), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ],
)
def test_nothing_is_made_up_where_somebody_looked_and_saw_nothing(looked, expected):
    track = track_of([sighting(0, 0), sighting(2, 10), sighting(3, 10), sighting(9, 90)], tuple(looked))
    assert track.frames.tolist() == expected


def test_an_outline_that_was_not_measured_moves_with_the_box():
    track = track_of([sighting(0, 0), sighting(1, 50, measured=False), sighting(2, 20)])
    np.testing.assert_allclose(track.ovals_px[1], [[50, 10], [70, 10], [70, 30], [50, 30]])
    assert track.embedded.tolist() == [True, False, True] and track.scores[1] == pytest.approx(0.9)
    assert track.yaw_deg[1] == pytest.approx(10)


def test_dtypes_and_shapes_are_the_contracts():
    track = track_of([sighting(3, 0)])
    dtypes = {"frames": "int32", "embedded": "bool", "crop_frames": "int32", "crops": "uint8"}
    for name in (
        "boxes_px",
        "landmarks_px",
        "ovals_px",
        "scores",
        "norms",
        "sharpness",
        "yaw_deg",
        "pitch_deg",
        "roll_deg",
        "embeddings",
    ):
        dtypes[name] = "float32"
    assert {name: str(getattr(track, name).dtype) for name in dtypes} == dtypes
    assert track.crops.shape == (0, 112, 112, 3) and track.ovals_px.shape == (1, 4, 2)


def crop(frame, yaw_deg=0.0, quality=1.0):
    return Crop(frame, np.full((112, 112, 3), frame % 256, np.uint8), yaw_deg, quality)


def test_few_crops_are_all_kept():
    assert [c.frame for c in spread([crop(f) for f in range(5)], 12)] == [0, 1, 2, 3, 4]


def test_crops_are_spread_over_time_and_yaw_and_prefer_quality():
    even = spread([crop(f) for f in range(100)], 5)
    assert np.diff([c.frame for c in even]).min() >= 12
    turning = [crop(50, yaw_deg=y) for y in range(-40, 41)]
    assert [c.yaw_deg for c in spread(turning, 3)] == [-40, 0, 40] or np.ptp(
        [c.yaw_deg for c in spread(turning, 3)]
    ) == 80
    best = [crop(f, quality=4.0 if f % 10 == 5 else 1.0) for f in range(100)]
    assert sum(c.frame % 10 == 5 for c in spread(best, 8)) >= 6


def test_a_long_track_holds_few_crops():
    seen = Sightings()
    for frame in range(2000):
        seen.add(sighting(frame, 0, crop=crop(frame, yaw_deg=frame % 60)))
        assert len(seen._crops) <= THIN_AT
    track = seen.to_track("c-t000", "c", 0, np.arange(2000, dtype=np.int32))
    assert len(track.crop_frames) == MAX_CROPS == len(track.crops)
    assert (np.diff(track.crop_frames) > 0).all() and np.ptp(track.crop_frames) > 1000
    assert [c[0, 0, 0] for c in track.crops] == [f % 256 for f in track.crop_frames]


def test_another_track_is_appended():
    first, later = Sightings(), Sightings()
    first.add(sighting(0, 0))
    later.add(sighting(7, 10))
    first.extend(later)
    assert first.to_track("c-t000", "c", 0, np.arange(8, dtype=np.int32)).frames.tolist() == [0, 7]
