"""Follows the faces of one shot: looks for them where the picture moved, measures, embeds and tracks them.

The networks are the cost (one thread, 720p: detector 33 ms a frame, mesh 6 and recogniser 11 ms a face), so a frame
is looked at only where a face may have gone somewhere, and a face is measured only on frames that a window may use
or where it is embedded, and embedded only where the tracker asks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from data_prep.analysis.masks import checked_outline
from data_prep.analysis.motion import Pacer
from data_prep.analysis.sightings import Crop, Sighting, Sightings
from data_prep.config import PrepareConfig
from data_prep.faces.analyser import FaceAnalyser, MeasuredFace, SeenFace, analyser_for
from data_prep.faces.quality import face_quality, in_words
from data_prep.records import F32, U8, Decision, FaceTrack
from data_prep.tracks import FaceTracker, iou


@dataclass(frozen=True)
class _Frame:
    """A frame and whether a window may show it; image: u8[H,W,3] RGB."""

    number: int
    image: U8
    used: bool


class FaceFollower:
    """The faces of a clip's shots, one after the other."""

    def __init__(self, clip_id: str, config: PrepareConfig, thumb_scale: float) -> None:
        """thumb_scale: pixels of the frame per pixel of its thumbnail, on which motion is seen."""
        faces = config.faces
        self._clip_id, self._config, self._thumb_scale = clip_id, config, thumb_scale
        self._faces: FaceAnalyser = analyser_for(faces.pack, (faces.det_width, faces.det_height))
        self._tracker = FaceTracker(config.tracks, faces.embed_every, config.link.min_norm)
        self._pacer = Pacer(faces.detect_every, faces.max_travel, faces.min_size_px / thumb_scale)
        self._pacer.cut()
        self._seen: dict[int, Sightings] = {}
        self._looked: list[int] = []
        self._passed: _Frame | None = None

    def see(self, number: int, image: U8, flow: F32, *, used: bool) -> None:
        """The next frame, u8[H,W,3] RGB; flow: f32[h,w,2] what moved since the last, in the thumbnail's pixels."""
        boxes = self._tracker.boxes_px(number) / self._thumb_scale
        if self._pacer.is_due(flow, boxes, unsure=self._tracker.is_unsure):
            self._look(_Frame(number, image, used))
            self._passed = None
        else:
            self._passed = _Frame(number, image.copy(), used)  # not a view: that would keep its whole chunk

    def finish_shot(self, shot: int) -> tuple[list[FaceTrack], list[Decision]]:
        """The tracks of the shot that ends, and what became of each with its numbers. Its last frame is looked at,
        so that nobody who stays to the end is lost before it."""
        if self._passed is not None:
            self._look(self._passed)
        looked = np.array(self._looked, np.int32)
        tracks: list[FaceTrack] = []
        decisions: list[Decision] = []
        for number, seen in sorted(self._seen.items()):
            track_id = f"{self._clip_id}-t{number:03d}"
            num_frames, least = len(seen.frames(looked)), self._config.tracks.min_frames
            if num_frames < least:
                decisions.append(_dropped(track_id, "track_too_short", str(num_frames), str(least)))
            elif not seen.is_embedded:
                decisions.append(_dropped(track_id, "never_embedded", "0 embeddings", "at least 1"))
            else:
                track = seen.to_track(track_id, self._clip_id, shot, looked)
                told = in_words(track, self._config.link.min_norm)
                tracks.append(track)
                decisions.append(Decision(track_id, "track", "kept", "analyse", detail=told))
        self._seen, self._looked, self._passed = {}, [], None
        self._tracker.cut()
        self._pacer.cut()
        return tracks, decisions

    def _look(self, frame: _Frame) -> None:
        """Detects, and gives every face to its track."""
        self._looked.append(frame.number)
        faces = [face for face in self._faces.detect(frame.image) if self._counts(face)]
        boxes_px = np.asarray([face.box_px for face in faces], np.float32).reshape(-1, 4)
        wanted = self._tracker.wanted(frame.number, boxes_px)
        measured = [
            self._faces.measure(frame.image, f) if frame.used or w else None
            for f, w in zip(faces, wanted, strict=True)
        ]
        embeddings, norms = self._embed(measured, wanted)
        alone = (iou(boxes_px, boxes_px) > 0).sum(1) == 1
        numbers = self._tracker.step(frame.number, boxes_px, embeddings, norms)
        for nameless, known in self._tracker.adopted.items():
            self._seen[known].extend(self._seen.pop(nameless))
        for i, face in enumerate(faces):
            sighting = _sighting(frame.number, face, measured[i])
            if wanted[i]:
                sighting = replace(sighting, embedding=embeddings[i], norm=float(norms[i]))
                sighting = replace(sighting, crop=self._crop(sighting, measured[i]) if alone[i] else None)
            self._seen.setdefault(int(numbers[i]), Sightings()).add(sighting)

    def _counts(self, face: SeenFace) -> bool:
        limits = self._config.faces
        return face.score >= limits.min_score and min(face.box_px[2:] - face.box_px[:2]) >= limits.min_size_px

    def _embed(self, measured: list[MeasuredFace | None], wanted: npt.NDArray[np.bool_]) -> tuple[F32, F32]:
        """Unit rows f32[n,D] and norms f32[n] of the wanted faces, zeros for the others."""
        crops = [m.crop for m, w in zip(measured, wanted, strict=True) if m is not None and w]
        norms = np.zeros(len(measured), np.float32)
        if not crops:
            return np.zeros((len(measured), self._faces.pack.spec.dim), np.float32), norms
        unit, norms[wanted] = self._faces.embed(np.stack(crops))
        embeddings = np.zeros((len(measured), unit.shape[1]), np.float32)
        embeddings[wanted] = unit
        return embeddings, norms

    def _crop(self, sighting: Sighting, measured: MeasuredFace | None) -> Crop | None:
        """The face as a reference candidate, None where it is not good enough to be one."""
        limits = self._config.references
        if measured is None or sighting.score < limits.min_score or sighting.norm < limits.min_norm:
            return None
        if measured.sharpness < limits.min_sharpness:
            return None
        width, height = sighting.box_px[2:] - sighting.box_px[:2]
        size_px = np.array([min(width, height)], np.float32)
        angles = np.array([(measured.pose.yaw_deg, measured.pose.pitch_deg)], np.float32)
        sharpness, norm = np.array([measured.sharpness], np.float32), np.array([sighting.norm], np.float32)
        quality = face_quality(size_px, sharpness, angles, norm, self._config.link.min_norm)
        return Crop(sighting.frame, measured.crop, measured.pose.yaw_deg, float(quality.overall[0]))


def _sighting(frame: int, face: SeenFace, measured: MeasuredFace | None) -> Sighting:
    if measured is None:
        return Sighting(frame, face.box_px, face.landmarks_px, face.score)
    return Sighting(
        frame=frame,
        box_px=face.box_px,
        landmarks_px=face.landmarks_px,
        score=face.score,
        outline_px=checked_outline(measured.outline_px, face.box_px),
        pose=measured.pose,
        sharpness=measured.sharpness,
    )


def _dropped(track_id: str, rule: str, value: str, limit: str) -> Decision:
    return Decision(track_id, "track", "dropped", "analyse", rule, value, limit)
