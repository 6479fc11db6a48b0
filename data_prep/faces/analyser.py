"""Find the faces of an image, measure each one and embed it, through insightface's FaceAnalysis as it is."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_prep.faces import geometry
from data_prep.faces.packs import find_pack
from data_prep.faces.pose import Pose, pose_of_five, pose_of_mesh
from data_prep.faces.recogniser import Recogniser, session_options
from data_prep.records import F32, U8, InputError, MaskShape

DETECTION_FLOOR = 0.5  # what insightface itself keeps; callers choose their own, higher limits
MESH, HULL = "landmark_2d_468", "landmark_2d_106"  # insightface's names of the tasks
TASKS = ["detection", "recognition", MESH, HULL]  # a pack's age and sex are not used


@dataclass(frozen=True)
class SeenFace:
    """A detected face. box_px: f32[4] x1 y1 x2 y2, may reach over the border; landmarks_px: f32[5,2] eyes, nose,
    mouth corners, image left first; score: detector confidence in [0,1]."""

    box_px: F32
    landmarks_px: F32
    score: float


@dataclass(frozen=True)
class MeasuredFace:
    """What one look at a face yields. outline_px: f32[36,2] closed, clockwise from the forehead; pose: which way it
    looks; crop: u8[112,112,3] RGB, aligned; landmarks_px: f32[5,2], the points it is aligned by, in its pixels;
    sharpness: variance of its Laplacian; mesh_px: f32[468,2] of the picture, None where the pack has no mesh."""

    outline_px: F32
    pose: Pose
    crop: U8
    landmarks_px: F32
    sharpness: float
    mesh_px: F32 | None = None


class FaceAnalyser:
    """A face pack, loaded. Images are u8[H,W,3] RGB; insightface's BGR stays inside."""

    def __init__(
        self,
        pack: str = "embedded",
        det_size: tuple[int, int] = (640, 384),
        threads: int = 1,
        home: Path | None = None,
    ) -> None:
        """det_size: width, height that an image is fitted into for detection, multiples of 32.

        Raises InputError where the pack is not installed, has no detector, or det_size does not fit.
        """
        if any(side <= 0 or side % 32 for side in det_size):
            raise InputError(f"faces.det_width, faces.det_height: came {det_size}; use multiples of 32.")
        self.pack = find_pack(pack, home)
        if not self.pack.spec.has_detector:
            raise InputError(f"faces.pack: {pack!r} has a recogniser only; detect with 'embedded'.")
        self._models = _load(self.pack.folder, det_size, threads)
        self._recogniser = Recogniser(self.pack, threads, self._models["recognition"])

    def detect(self, image: U8) -> list[SeenFace]:
        """The faces of an image, best score first."""
        boxes, landmarks = self._models["detection"].detect(_bgr(image))
        return [
            SeenFace(np.asarray(box[:4], np.float32), np.asarray(five, np.float32), float(box[4]))
            for box, five in zip(boxes, landmarks, strict=True)
        ]

    def measure(self, image: U8, face: SeenFace, shape: MaskShape = "auto") -> MeasuredFace:
        """Outline, pose and aligned crop of one detected face; runs each landmark model that they need once.

        Raises InputError where the pack has no landmarks for the ``shape`` of the outline.
        """
        self.pack.require_shape(shape)
        mesh = self._landmarks(MESH, image, face) if MESH in self._models else None
        five = face.landmarks_px if mesh is None else geometry.mesh_five(mesh)
        crop = geometry.aligned_crop(image, five)
        return MeasuredFace(
            outline_px=self._outline(image, replace(face, landmarks_px=five), mesh, shape),
            pose=pose_of_five(five) if mesh is None else pose_of_mesh(mesh),
            crop=crop,
            landmarks_px=geometry.in_crop(five),
            sharpness=geometry.sharpness(crop),
            mesh_px=mesh,
        )

    def embed(self, crops: U8) -> tuple[F32, F32]:
        """u8[n,112,112,3] → unit rows f32[n,D] and lengths f32[n]; see ``Recogniser.embed``."""
        return self._recogniser.embed(crops)

    def _outline(self, image: U8, face: SeenFace, mesh: F32 | None, shape: MaskShape) -> F32:
        """f32[36,2]; ``auto`` draws the first of mesh, hull and ellipse that the pack has landmarks for."""
        if mesh is not None and shape in ("auto", "mesh"):
            return np.asarray(mesh[list(geometry.MESH_OVAL)])
        if shape in ("auto", "hull"):
            points = self._landmarks(HULL, image, face) if HULL in self._models else mesh
            if points is not None:
                return geometry.hull_outline(points)
        return geometry.ellipse_outline(face.landmarks_px)

    def _landmarks(self, task: str, image: U8, face: SeenFace) -> F32:
        from insightface.app.common import Face

        points = self._models[task].get(_bgr(image), Face(bbox=face.box_px))
        return np.asarray(points, np.float32)


@cache
def analyser_for(
    pack: str = "embedded", det_size: tuple[int, int] = (640, 384), home: Path | None = None
) -> FaceAnalyser:
    """One analyser per process, pack and size."""
    return FaceAnalyser(pack, det_size, home=home)


def _bgr(image: U8) -> U8:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), np.uint8)


def _load(folder: Path, det_size: tuple[int, int], threads: int) -> dict[str, Any]:
    """insightface's models by task. The absolute folder is given as the name, so that neither the working
    directory nor the web is searched; what it prints is held back."""
    from insightface.app import FaceAnalysis

    with contextlib.redirect_stdout(io.StringIO()):
        analysis = FaceAnalysis(str(folder), allowed_modules=TASKS, sess_options=session_options(threads))
        analysis.prepare(ctx_id=0, det_thresh=DETECTION_FLOOR, det_size=det_size)
    models: dict[str, Any] = analysis.models
    return models
