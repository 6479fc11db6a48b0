"""Cached embeddings: computed once, never stale, own faces only where they are good enough."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_prep.records import F32, U8, InputError
from pipeline.data.features import FeatureStore, Recogniser, embed_faces, own_face

WIDTH = 6


def embed(crops: U8) -> tuple[F32, F32]:
    """Mean colour of the upper and lower half; a real function of the pixels, with a norm that grows with light."""
    halves = crops.reshape(len(crops), 2, 56, 112, 3).mean((2, 3)).reshape(len(crops), WIDTH)
    norms = np.linalg.norm(halves, axis=1)
    return np.asarray(halves / norms[:, None], np.float32), np.asarray(norms, np.float32)


RECOGNISER = Recogniser("colours", embed, "a" * 64, WIDTH, min_norm=100.0)


def crop(level: int) -> U8:
    image = np.full((112, 112, 3), level, np.uint8)
    image[56:, :, 0] = 0
    return image


def faces() -> tuple[tuple[U8, ...], tuple[U8 | None, ...]]:
    references = (
        np.stack([crop(90), crop(120), crop(200)]),
        np.stack([crop(60)]),
        np.stack([crop(70), crop(80)]),
    )
    return references, (crop(150), None, crop(20))


def test_each_slot_gets_its_own_and_padding_is_masked() -> None:
    references, own = faces()
    features = embed_faces(RECOGNISER, references, own)
    assert features.references.shape == (3, 3, WIDTH)
    assert features.reference_mask.tolist() == [[True] * 3, [True, False, False], [True, True, False]]
    for slot, pictures in enumerate(references):
        np.testing.assert_array_equal(features.references[slot, : len(pictures)], embed(pictures)[0])
    assert not features.references[~features.reference_mask].any()
    assert features.own_mask.tolist() == [True, False, False]  # none given; too dark to be recognised
    np.testing.assert_array_equal(features.own[0], embed(crop(150)[None])[0][0])
    assert not features.own[1:].any()


def first_pixels(crops: U8) -> F32:
    """Not landmarks, but a real function of the pixels in their shape."""
    return crops.reshape(len(crops), -1)[:, :10].reshape(-1, 5, 2).astype(np.float32)


def test_pictures_are_kept_where_landmarks_are_found_and_under_another_key(tmp_path: Path) -> None:
    references, own = faces()
    pictured = replace(RECOGNISER, landmarks=first_pixels, landmarks_sha256="b" * 64)
    features = embed_faces(pictured, references, own)
    assert features.pictures is not None and features.landmarks is not None
    for slot in range(3):
        np.testing.assert_array_equal(features.pictures[slot, 0], references[slot][0])
        face = own[slot]
        np.testing.assert_array_equal(features.pictures[slot, 1], 0 if face is None else face)
        seen = 2 if face is not None else 1
        expected = first_pixels(features.pictures[slot, :seen])
        np.testing.assert_array_equal(features.landmarks[slot, :seen], expected)
    plain = embed_faces(RECOGNISER, references, own)
    assert plain.pictures is None and plain.landmarks is None
    np.testing.assert_array_equal(features.references, plain.references)

    stores = [FeatureStore(tmp_path, recogniser, "asked") for recogniser in (RECOGNISER, pictured)]
    other = FeatureStore(tmp_path, replace(pictured, landmarks_sha256="c" * 64), "asked")
    assert len({store.packs.folder for store in (*stores, other)}) == 3
    for store, wanted in zip(stores, (plain, features), strict=True):
        store.get("d" * 64, lambda: (references, own))
        read = store.kept("d" * 64)
        assert read is not None
        for name, value in vars(wanted).items():
            assert (getattr(read, name) is None) == (value is None)
            if value is not None:
                np.testing.assert_array_equal(getattr(read, name), value)


def test_is_computed_once_and_read_back_equal(tmp_path: Path) -> None:
    calls = []

    def cut() -> tuple[tuple[U8, ...], tuple[U8 | None, ...]]:
        calls.append(1)
        return faces()

    first = FeatureStore(tmp_path, RECOGNISER, "frames 3").get("b" * 64, cut)
    again = FeatureStore(tmp_path, RECOGNISER, "frames 3").get("b" * 64, cut)
    assert len(calls) == 1
    for name, value in vars(first).items():
        np.testing.assert_array_equal(getattr(again, name), value)


@pytest.mark.parametrize("change", ["recogniser", "asked", "sample"])
def test_nothing_stale_is_ever_used(change: str, tmp_path: Path) -> None:
    FeatureStore(tmp_path, RECOGNISER, "frames 3").get("b" * 64, faces)
    recogniser = replace(RECOGNISER, sha256="c" * 64) if change == "recogniser" else RECOGNISER
    store = FeatureStore(tmp_path, recogniser, "frames 5" if change == "asked" else "frames 3")
    with pytest.raises(ZeroDivisionError):  # it asks for the faces anew
        store.get("d" * 64 if change == "sample" else "b" * 64, lambda: 1 // 0)  # type: ignore[arg-type, return-value]


def test_a_damaged_file_is_computed_again(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, RECOGNISER, "asked")
    first = store.get("c0ffee", faces)
    store.keep({"decade": faces})  # what castbank cache wrote
    for path in tmp_path.rglob("*.safetensors"):
        whole = path.read_bytes()
        flipped = bytes([*whole[:-30], whole[-30] ^ 1, *whole[-29:]])
        for damaged in (b"", whole[:-40], flipped):
            path.write_bytes(damaged)
            opened = FeatureStore(tmp_path, RECOGNISER, "asked")
            for name in ("c0ffee", "decade"):
                np.testing.assert_array_equal(opened.get(name, faces).references, first.references)
            again = FeatureStore(tmp_path, RECOGNISER, "asked")
            assert again.kept("c0ffee") is not None and again.kept("decade") is not None


def test_what_another_process_computes_while_training_is_found(tmp_path: Path) -> None:
    one, other = (FeatureStore(tmp_path, RECOGNISER, "asked") for _ in range(2))
    assert other.kept("c0ffee") is None
    first = one.get("c0ffee", faces)
    again = other.get("c0ffee", lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    np.testing.assert_array_equal(again.references, first.references)


def test_files_of_an_earlier_version_are_not_read(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, RECOGNISER, "asked")
    old = tmp_path / hashlib.sha256(b"a" * 64 + b"/asked").hexdigest()[:16] / "c0"
    for folder in (old, store.packs.folder):
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "c0ffee.npz", references=np.zeros(3))
    assert FeatureStore(tmp_path, RECOGNISER, "asked").kept("c0ffee") is None


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"data\.features: .*file.*Not a directory"):
        FeatureStore(tmp_path / "file", RECOGNISER, "asked")


def test_a_writer_that_dies_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    class Full(RuntimeError): ...

    def broken(crops: U8) -> tuple[F32, F32]:
        raise Full

    with pytest.raises(Full):
        FeatureStore(tmp_path, replace(RECOGNISER, embed=broken), "").get("b" * 64, faces)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_own_face_is_the_largest_region_centred() -> None:
    video = np.zeros((2, 40, 60, 3), np.uint8)
    mask = np.zeros((2, 40, 60), np.bool_)
    mask[0, 5:15, 5:15] = True
    mask[1, 10:30, 20:40] = True
    video[1, 10:30, 20:40] = 250
    video[0, 5:15, 5:15] = 90  # the smaller region
    crop = own_face(video, mask, 8)
    assert crop is not None
    assert crop.shape == (112, 112, 3)
    assert crop.min() > 125  # nothing but the face
    assert own_face(video, mask, 21) is None
    assert own_face(video, np.zeros_like(mask), 1) is None
