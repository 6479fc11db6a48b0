"""Packs as they lie on a disk: found, absent, incomplete, altered, crowded, and the licence said aloud."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from data_prep.faces import packs
from data_prep.faces.install import SOURCES, install
from data_prep.records import InputError


@pytest.fixture
def copy(face_home: Path, tmp_path: Path) -> Path:
    """A home of its own with the embedded packs in it."""
    shutil.copytree(face_home / "models" / "embedded", tmp_path / "models" / "embedded")
    return tmp_path


def test_installed_packs_are_found_whole(face_home: Path) -> None:
    for name in ("embedded", "embedded_alt"):
        assert packs.find_pack(name, face_home).recogniser.is_file()
        assert not install(name, face_home)


def test_every_built_file_has_a_source_and_a_hash() -> None:
    assert {name: set(spec.files) for name, spec in packs.PACKS.items() if spec.files} == {
        name: set(sources) for name, sources in SOURCES.items()
    }


def test_an_absent_pack_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not installed.*castbank faces install embedded"):
        packs.find_pack("embedded", tmp_path)


def test_an_unknown_pack_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'buffalo_x'; known are embedded, embedded_alt, buffalo_l"):
        packs.find_pack("buffalo_x", tmp_path)


def test_an_altered_file_is_refused(copy: Path) -> None:
    path = copy / "models" / "embedded" / "lmk_facemesh468.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(InputError, match=r"lmk_facemesh468\.onnx has sha256 .* expected e1e851cd"):
        packs.find_pack("embedded", copy)


def test_a_file_missing_after_a_kill_is_named(copy: Path) -> None:
    (copy / "models" / "embedded" / "det_centerface.onnx").unlink()
    with pytest.raises(InputError, match=r"det_centerface\.onnx is missing"):
        packs.find_pack("embedded", copy)


def test_a_foreign_model_is_refused(copy: Path) -> None:
    (copy / "models" / "embedded" / "a_detector.onnx").write_bytes(b"")
    with pytest.raises(InputError, match=r"a_detector\.onnx.*move it away"):
        packs.find_pack("embedded", copy)


def test_a_non_commercial_licence_is_said_aloud(tmp_path: Path) -> None:
    place = tmp_path / "models" / "buffalo_l"
    place.mkdir(parents=True)
    (place / "w600k_r50.onnx").write_bytes(b"")
    with pytest.warns(UserWarning, match="buffalo_l: non-commercial"):
        assert packs.find_pack("buffalo_l", tmp_path).folder == place


def test_insightfaces_packs_cannot_be_built(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="non-commercial"):
        install("antelopev2", tmp_path)


def test_home_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CASTBANK_HOME", str(tmp_path))
    assert packs.home() == tmp_path
    monkeypatch.delenv("CASTBANK_HOME")
    assert packs.home() == Path("~/.cache/castbank").expanduser()


def test_a_pack_says_which_outlines_it_can_draw(face_home: Path, tmp_path: Path) -> None:
    assert packs.find_pack("embedded", face_home).shapes == ("mesh", "hull", "ellipse")
    theirs = packs.InstalledPack(packs.PACKS["buffalo_l"], tmp_path)
    assert theirs.shapes == ("ellipse",)
    (tmp_path / "2d106det.onnx").touch()
    assert theirs.shapes == ("hull", "ellipse")
    theirs.require_shape("auto")
    with pytest.raises(
        InputError, match=r"masks.shape: came 'mesh'.*'buffalo_l' draw hull, ellipse; take one"
    ):
        theirs.require_shape("mesh")
