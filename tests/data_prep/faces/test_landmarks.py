"""Points found in a crop against those found in its photograph, moved as the crop was cut out of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_prep.faces.analyser import analyser_for
from data_prep.faces.landmarks import find_mesh, five_points
from data_prep.records import InputError
from tests.pipeline.real_faces import read_scene


def test_points_of_crops_are_those_of_the_photograph(footage: Path, face_home: Path) -> None:
    analyser = analyser_for("embedded", home=face_home)
    crops, expected = [], []
    for clip in ("cafe-01", "table-01"):
        frame = read_scene(footage, clip, (0,)).frames[0]
        for face in analyser.detect(frame):
            if face.score >= 0.8:
                measured = analyser.measure(frame, face)
                crops.append(measured.crop)
                expected.append(measured.landmarks_px)
    assert len(crops) >= 4
    found = five_points("embedded", np.stack(crops), face_home)
    apart = np.linalg.norm(found - np.stack(expected), axis=-1)  # px of 112
    assert np.median(apart) < 2 and apart.max() < 8, apart.round(1)


def test_a_pack_without_a_mesh_is_refused_by_name(face_home: Path) -> None:
    with pytest.raises(InputError, match=r"'embedded_alt' has no 468-point mesh.*'embedded'"):
        find_mesh("embedded_alt", face_home)
