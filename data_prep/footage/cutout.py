"""A take, cut out: its pictures with opacity, and the outline of every face as seen before anything is composed.

The outlines are the ground truth's origin. They are measured on the undisturbed source picture, so the truth does
not depend on what preparation can see in the finished clip.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from data_prep.faces import MeasuredFace, SeenFace
from data_prep.footage.cast import Take
from data_prep.footage.media import Media
from data_prep.records import F32, U8, InputError

FEATHER = 0.04  # share of the picture's width over which a body that runs out of the picture fades
MARGIN = 0.25  # share of the picture added around it, so that a face that fills it is still found


class FaceFinder(Protocol):
    """The two calls that are needed of a face analyser."""

    def detect(self, image: U8) -> list[SeenFace]: ...

    def measure(self, image: U8, face: SeenFace) -> MeasuredFace: ...


Matte = Callable[[U8], F32]
"""u8[H,W,3] RGB -> f32[H,W] opacity in [0,1]."""


@dataclass(frozen=True)
class Cutout:
    """N pictures of a take with P people. rgba: u8[N,H,W,4], colour already multiplied by opacity; ovals_px:
    f32[N,P,K,2] outline of each face in the picture, people in the order of the take."""

    rgba: U8
    ovals_px: F32

    @property
    def centre_px(self) -> F32:
        """f32[2]: where the first person's face is, on the whole; the point that a shot places."""
        low, high = self._extent()
        return np.asarray((low + high) / 2, np.float32)

    @property
    def face_px(self) -> float:
        """Height of the first person's face, on the whole; the length that a shot scales."""
        low, high = self._extent()
        return float(high[1] - low[1])

    def _extent(self) -> tuple[F32, F32]:
        first = self.ovals_px[:, 0]
        return np.median(first.min(1), axis=0), np.median(first.max(1), axis=0)


def cut_out(take: Take, media: Media, finder: FaceFinder, matte: Matte) -> Cutout:
    """Read a take, find the outline of its faces and make its background transparent.

    Raises InputError where the number of faces found is not that of the take's people.
    """
    images = _pictures(take, media)
    ovals = np.stack([_ovals(image, take, finder) for image in images])
    rgba = np.stack([_with_opacity(image, _opacity(image, take, matte)) for image in images])
    return Cutout(rgba, ovals.astype(np.float32))


def _pictures(take: Take, media: Media) -> list[U8]:
    if media.is_film(take.media):
        images = media.frames(take.media, take.start, take.num_frames)
    else:
        images = [media.picture(take.media)]
    return [np.ascontiguousarray(i[:, ::-1]) for i in images] if take.mirrored else images


def _ovals(image: U8, take: Take, finder: FaceFinder) -> F32:
    """f32[P,K,2] of the take's P most certain faces, from left to right."""
    height, width = image.shape[:2]
    top, left = int(height * MARGIN), int(width * MARGIN)
    padded = np.asarray(cv2.copyMakeBorder(image, top, top, left, left, cv2.BORDER_REPLICATE), np.uint8)
    faces = finder.detect(padded)[: len(take.people)]
    if len(faces) < len(take.people):
        raise InputError(f"{take.media}: {len(faces)} faces found where {len(take.people)} are expected.")
    ovals = np.stack([finder.measure(padded, face).outline_px for face in faces])
    ovals = ovals[np.argsort(ovals[:, :, 0].mean(1))] - np.array([left, top])
    return np.asarray(ovals, np.float32)


def _opacity(image: U8, take: Take, matte: Matte) -> F32:
    """f32[H,W]: 1 where the picture is to be seen. A body that runs out of the picture fades at its sides."""
    height, width = image.shape[:2]
    if take.cut in {"panel", "whole"}:
        return np.ones((height, width), np.float32)
    ramp = np.minimum(np.arange(width), np.arange(width)[::-1]) / (FEATHER * width)
    alpha = matte(image) * np.clip(ramp, 0, 1)[None]
    if take.cut == "blue_screen":
        alpha = alpha * np.clip((50 - _blueness(image)) / 40, 0, 1)
    return np.asarray(alpha, np.float32)


def _blueness(image: U8) -> F32:
    """f32[H,W]: by how much blue, of 255, exceeds the stronger of the other channels."""
    red, green, blue = cv2.split(image)
    return np.asarray(cv2.subtract(blue, cv2.max(red, green)), np.float32)


def _with_opacity(image: U8, alpha: F32) -> U8:
    """u8[H,W,4], with blue-screen spill taken out of half-covered pixels."""
    colour = image.astype(np.float32)
    edge = (alpha > 0) & (alpha < 1)
    colour[..., 2] -= np.where(edge, _blueness(image), 0)
    return np.dstack([colour * alpha[..., None], alpha * 255]).round().astype(np.uint8)
