"""Whole people: cut out of a scene that they were put into, so that every pixel's owner is known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.faces import analyser_for
from data_prep.faces import matte as mattes
from data_prep.faces.matte import PersonMatte, fetch_matte, find_matte, install_matte
from data_prep.footage import DET_SIZE, media
from data_prep.footage.cast import TAKES
from data_prep.footage.cutout import Cutout, cut_out
from data_prep.records import U8, InputError
from data_prep.selection.regions import REGIONS, faces_alone, grown
from data_prep.video.encode import encode_mp4

HEIGHT, WIDTH = 270, 480


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed matte."""
    folder = tmp_path_factory.mktemp("home")
    assert install_matte(folder)
    return folder


@pytest.fixture(scope="module")
def nora(face_home: Path, footage: Path) -> Cutout:
    finder = analyser_for("embedded", DET_SIZE, face_home)
    return cut_out(TAKES["nora-1"], media.Media(face_home / "media"), finder, fetch_matte())


def scene(nora: Cutout) -> tuple[U8, U8, U8]:
    """Nora twice before a wall, the larger in front: the picture, her faces as slots 1 and 2, all of her."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    picture = np.stack([90 + x / 6, 100 + y / 4, 150 - x / 8], -1)
    faces, people = np.zeros((HEIGHT, WIDTH), np.uint8), np.zeros((HEIGHT, WIDTH), np.uint8)
    for slot, (left, height) in enumerate(((30, 200), (230, 250)), 1):
        scale = height / nora.rgba.shape[1]
        move = np.array([[scale, 0, left], [0, scale, HEIGHT - height]])
        rgba = cv2.warpAffine(nora.rgba[0], move, (WIDTH, HEIGHT), flags=cv2.INTER_AREA)
        alpha = rgba[..., 3:] / 255
        picture = picture * (1 - alpha) + rgba[..., :3] * alpha
        oval = np.round(nora.ovals_px[0, 0] * scale + [left, HEIGHT - height]).astype(np.int32)
        people[alpha[..., 0] > 0.5] = slot
        faces[alpha[..., 0] > 0.5] = 0
        cv2.fillPoly(faces, [oval], slot)
    return picture.round().astype(np.uint8), faces, people


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_people_are_found_from_their_faces(nora: Cutout, home: Path) -> None:
    picture, faces, people = scene(nora)
    found = grown(faces, picture, mattes.matte_for(home))
    for slot in (1, 2):
        print(f"slot {slot}: IoU {overlap(found == slot, people == slot):.3f}")
        assert overlap(found == slot, people == slot) > 0.75
        assert overlap(faces == slot, people == slot) < 0.5
    np.testing.assert_array_equal(found[faces > 0], faces[faces > 0])
    assert ((found == 1) & (people == 2)).sum() < 0.02 * (people == 2).sum()


def test_who_has_no_slot_is_nobody(nora: Cutout, home: Path) -> None:
    picture, faces, people = scene(nora)
    found = grown(np.where(faces == 1, faces, 0).astype(np.uint8), picture, mattes.matte_for(home))
    assert set(np.unique(found)) == {0, 1}
    assert ((found == 1) & (people == 2)).sum() < 0.1 * (people == 2).sum()
    assert not grown(np.zeros_like(faces), picture, mattes.matte_for(home)).any()


def test_a_matte_that_finds_somebody_else_leaves_the_face_as_it_is() -> None:
    """Where no person is, whatever the matte takes for one does not hold the face."""

    class Elsewhere(PersonMatte):
        def __init__(self) -> None:
            """Finds the bottom row."""

        def __call__(self, image: U8) -> np.ndarray:
            alpha = np.zeros(image.shape[:2], np.float32)
            alpha[-1] = 1
            return alpha

    faces = np.zeros((40, 40), np.uint8)
    faces[5:15, 10:20] = 3
    np.testing.assert_array_equal(grown(faces, np.zeros((40, 40, 3), np.uint8), Elsewhere()), faces)


def test_the_video_of_a_window_is_what_is_cut(
    nora: Cutout, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASTBANK_HOME", str(home))
    picture, faces, people = scene(nora)
    mp4 = encode_mp4(np.stack([picture] * 3), 24.0)
    found = REGIONS["person"](np.stack([faces] * 3), mp4)
    assert found.shape == (3, HEIGHT, WIDTH) and found.dtype == np.uint8
    assert overlap(found[2] == 2, people == 2) > 0.75
    maps = np.stack([faces] * 3)
    assert REGIONS["face"](maps, mp4) is maps is faces_alone(maps, mp4)


def test_the_matte_is_installed_once_and_checked(home: Path, tmp_path: Path) -> None:
    assert not install_matte(home)
    with pytest.raises(InputError, match=r"not installed at .*; run `castbank faces install person`"):
        find_matte(tmp_path)
    altered = mattes.matte_file(tmp_path)
    altered.parent.mkdir(parents=True)
    altered.write_bytes(b"x")
    with pytest.raises(InputError, match=r"has sha256 2d7116.*expected 8d13b7.*faces install person"):
        find_matte(tmp_path)
