"""Scenes to frames and ground truth: every face is placed by a motion that is known for each frame.

People are painted from back to front; whatever is painted over a face takes those pixels out of its truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.footage.backdrop import Scenery
from data_prep.footage.cast import TAKES
from data_prep.footage.cutout import Cutout
from data_prep.footage.motion import affine, back_and_forth, pose_at, sway_at, turned, turned_points
from data_prep.footage.scenes import HEIGHT_PX, WIDTH_PX, Actor, Scene, Shot
from data_prep.records import F32, U8

COVERED = 127  # opacity of 255 above which a painted pixel hides what is behind it


@dataclass(frozen=True)
class Stage:
    """What a scene needs: cut-out takes and scenery, by name."""

    cutouts: Mapping[str, Cutout]
    scenery: Mapping[str, Scenery]
    desk: U8


@dataclass(frozen=True)
class TrueFrame:
    """One rendered frame, u8[540,960,3] RGB, with its truth as in ``ClipTruth`` for P people."""

    image: U8
    boxes_px: F32
    visibility: F32
    labels: U8


@dataclass
class _Canvas:
    """A frame being painted."""

    image: U8
    labels: U8
    outlines: dict[int, F32]

    def paint(self, layer: U8, outlines: Mapping[int, F32]) -> None:
        """Put u8[H,W,4] (colour multiplied by opacity) on top; outlines: f32[K,2] by label."""
        opacity = layer[..., 3]
        behind = cv2.multiply(self.image, cv2.merge([255 - opacity] * 3), scale=1 / 255)
        self.image = np.asarray(cv2.add(behind, cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB)), np.uint8)
        shown = opacity > COVERED
        self.labels[shown] = 0
        for label, outline in outlines.items():
            face = cv2.fillPoly(np.zeros_like(self.labels), [np.round(outline).astype(np.int32)], 1)
            self.labels[shown & (face > 0)] = label
            self.outlines[label] = outline


def people_of(scene: Scene) -> tuple[str, ...]:
    """Stage names in order of appearance; their place + 1 is their label."""
    takes = (TAKES[actor.take] for shot in scene.shots for actor in shot.actors)
    return tuple(dict.fromkeys(name for take in takes for name in take.people))


def render(scene: Scene, stage: Stage) -> Iterator[TrueFrame]:
    """The frames of a scene in order."""
    people = people_of(scene)
    for shot in scene.shots:
        for frame in range(shot.num_frames):
            yield _render_frame(shot, frame, people, stage)


def _render_frame(shot: Shot, frame: int, people: tuple[str, ...], stage: Stage) -> TrueFrame:
    at = frame / max(shot.num_frames - 1, 1)
    canvas = _Canvas(
        stage.scenery[shot.backdrop].view(frame, at), np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8), {}
    )
    for actor in shot.actors:
        layer, ovals = _place(actor, stage.cutouts[actor.take], frame, at)
        labels = [people.index(name) + 1 for name in TAKES[actor.take].people]
        canvas.paint(layer, dict(zip(labels, ovals, strict=True)))
    if shot.desk_px:
        top = HEIGHT_PX - shot.desk_px
        canvas.image[top:] = stage.desk[: shot.desk_px]
        canvas.labels[top:] = 0
    light = 1 + 0.05 * float(np.sin(2 * np.pi * 0.8 * at))  # a lamp that is not quite steady
    image = np.asarray(cv2.convertScaleAbs(canvas.image, alpha=light), np.uint8)
    boxes, visibility = _seen(canvas, len(people))
    return TrueFrame(image, boxes, visibility, canvas.labels)


def _place(actor: Actor, cutout: Cutout, frame: int, at: float) -> tuple[U8, F32]:
    """The actor's layer u8[540,960,4] and the outlines of its faces f32[P,K,2], both in the frame."""
    index = back_and_forth(frame, len(cutout.rgba))
    rgba, ovals = cutout.rgba[index], cutout.ovals_px[index]
    if actor.sway_deg:
        turn = sway_at(actor.sway_deg, actor.phase + at, cutout.centre_px, cutout.face_px)
        rgba, ovals = turned(rgba, turn), np.stack([turned_points(o, turn) for o in ovals])
    matrix = affine(cutout.centre_px, cutout.face_px, pose_at(actor.path, at))
    layer = cv2.warpAffine(rgba, matrix, (WIDTH_PX, HEIGHT_PX), flags=cv2.INTER_LINEAR)
    return np.asarray(layer, np.uint8), np.asarray(ovals @ matrix[:, :2].T + matrix[:, 2], np.float32)


def _seen(canvas: _Canvas, num_people: int) -> tuple[F32, F32]:
    """Boxes f32[P,4] and visible shares f32[P] of everybody, NaN and 0 for who is not in the shot."""
    boxes = np.full((num_people, 4), np.nan, np.float32)
    visibility = np.zeros(num_people, np.float32)
    counts = np.bincount(canvas.labels.ravel(), minlength=num_people + 1)
    for label, outline in canvas.outlines.items():
        boxes[label - 1] = np.concatenate([outline.min(0), outline.max(0)])
        whole = max(float(cv2.contourArea(outline)), 1.0)
        visibility[label - 1] = min(1.0, counts[label] / whole)
    return boxes, visibility
