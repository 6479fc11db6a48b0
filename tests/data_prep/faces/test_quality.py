"""Four numbers of a face: each falls with what it is about, and with nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from data_prep.faces.quality import FaceQuality, face_quality

MIN_NORM = 2.8


def quality(**changes: Any) -> FaceQuality:
    values = {"size_px": 112.0, "sharpness": 100.0, "yaw_pitch_deg": (0.0, 0.0), "norms": 4.2} | changes
    given = {name: np.array([value], np.float32) for name, value in values.items()}
    return face_quality(**given, min_norm=MIN_NORM)


@pytest.mark.parametrize(
    ("field", "changes", "expected"),
    [
        ("size", {"size_px": 56.0}, 0.5),
        ("size", {"size_px": 400.0}, 1.0),
        ("sharp", {"sharpness": 25.0}, 0.25),
        ("front", {"yaw_pitch_deg": (60.0, 0.0)}, 0.5),
        ("front", {"yaw_pitch_deg": (45.0, -45.0)}, 0.5),
        ("front", {"yaw_pitch_deg": (100.0, 0.0)}, 0.0),
        ("clear", {"norms": 2.1}, 0.5),
        ("clear", {"norms": 8.0}, 1.0),
    ],
)
def test_each_number_is_about_one_thing(field: str, changes: dict[str, Any], expected: float) -> None:
    found = quality(**changes)
    assert getattr(found, field)[0] == pytest.approx(expected, abs=1e-6)
    assert [getattr(found, name)[0] for name in ("size", "sharp", "front", "clear") if name != field] == [
        1,
        1,
        1,
    ]
    assert found.overall[0] == pytest.approx(expected**0.25, abs=1e-6)


def test_nothing_counts_as_covered_where_a_pack_has_no_least_norm() -> None:
    one = np.ones(1, np.float32)
    assert face_quality(one, one, np.zeros((1, 2), np.float32), one * 0.1, 0.0).clear[0] == 1
