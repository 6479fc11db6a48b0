"""One clip, one decoding pass: shots, faces, tracks and encoded candidate windows.

The networks are the cost (one thread, 720p: detector 33 ms a frame, mesh 6 and recogniser 11 ms a face), so a face
is measured only on frames that a window may use or where it is embedded, and embedded only where the tracker asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from data_prep.config import PrepareConfig
from data_prep.decode import Chunk
from data_prep.faces.analyser import MeasuredFace, SeenFace, analyser_for
from data_prep.faces.packs import known_pack
from data_prep.limits import with_pack_limits
from data_prep.masks import back_to_front, checked_outline, draw
from data_prep.probe import MAX_UNEVENNESS, UnusableError, unevenness
from data_prep.reading import Reading, reading
from data_prep.records import F32, F64, I32, U8, AnalysedClip, Clip, Decision, FaceTrack, Window
from data_prep.shots import CutDetector, shots_between
from data_prep.sightings import Crop, Sighting, Sightings
from data_prep.tracks import FaceTracker, iou
from data_prep.windows import Framing, Recorded, WindowRecorder

SHARP_ENOUGH = 100.0
"""Variance of a crop's Laplacian from which more sharpness makes no better reference."""


def analyse(clip: Clip, config: PrepareConfig) -> AnalysedClip:
    """All that preparation needs from a clip. A file that no clip can be made of gives an AnalysedClip without
    frames and the Decision that says why; an unknown or missing face pack raises InputError."""
    config = with_pack_limits(config, known_pack(config.faces.pack))
    try:
        with reading(Path(clip.path), config.decode) as source:
            return _analysed(clip, config, source)
    except UnusableError as error:
        why = Decision(
            clip.id, "clip", "dropped", "analyse", error.rule, error.value, error.limit, detail=error.detail
        )
        return AnalysedClip(clip, 0, 0, np.zeros(0), (), (), (), decisions=(why,))


def _analysed(clip: Clip, config: PrepareConfig, source: Reading) -> AnalysedClip:
    watch: _Watch | None = None
    for chunk in source.chunks():
        if watch is None:
            size_px = (chunk.frames.shape[2], chunk.frames.shape[1])
            watch = _Watch(clip.id, config, source.found.times_s, size_px)
        watch.see_all(chunk)
        del chunk  # or its frames would live while the next ones are read
    assert watch is not None  # a probed file has a frame
    watch.finish_shot(source.found.num_frames)
    return watch.analysed(clip, source)


class _Watch:
    """What is known of a clip so far, while its frames pass by."""

    def __init__(self, clip_id: str, config: PrepareConfig, times_s: F64, size_px: tuple[int, int]) -> None:
        faces = config.faces
        self._clip_id, self._config = clip_id, config
        self._times_s, self._size_px = times_s, size_px
        self._faces = analyser_for(faces.pack, (faces.det_width, faces.det_height))
        self._framing = Framing.of(*size_px, config.windows)
        self._recorder = WindowRecorder(self._framing, config.windows, times_s)
        self._cuts = CutDetector(config.shots.threshold)
        self._tracker = FaceTracker(
            config.tracks, faces.detect_every, faces.embed_every, config.link.min_norm
        )
        self._seen: dict[int, Sightings] = {}
        self._starts = [0]
        self._recorded: list[tuple[int, Recorded]] = []
        self._tracks: list[FaceTrack] = []
        self._decisions: list[Decision] = []

    def see_all(self, chunk: Chunk) -> None:
        """The next frames, in order."""
        for at, image in enumerate(chunk.frames):
            self._see(chunk.start + at, image)

    def _see(self, frame: int, image: U8) -> None:
        """The next frame, u8[H,W,3] RGB."""
        if self._cuts.is_cut(image):
            self.finish_shot(frame)
            self._starts.append(frame)
        offset = frame - self._starts[-1]
        used, recorded = self._recorder.see(frame, offset, image)
        self._recorded.extend((len(self._starts) - 1, r) for r in recorded)
        if offset % self._config.faces.detect_every == 0:
            self._follow(frame, image, used)

    def _follow(self, frame: int, image: U8, used: bool) -> None:
        """Detects, and gives every face to its track; ``used``: a window may show this frame."""
        limits = self._config.faces
        faces = [
            face
            for face in self._faces.detect(image)
            if face.score >= limits.min_score and min(face.box_px[2:] - face.box_px[:2]) >= limits.min_size_px
        ]
        boxes_px = np.asarray([face.box_px for face in faces], np.float32).reshape(-1, 4)
        wanted = self._tracker.wanted(frame, boxes_px)
        measured = [
            self._faces.measure(image, f) if used or w else None for f, w in zip(faces, wanted, strict=True)
        ]
        embeddings, norms = self._embed(measured, wanted)
        alone = (iou(boxes_px, boxes_px) > 0).sum(1) == 1
        numbers = self._tracker.step(frame, boxes_px, embeddings, norms)
        for nameless, known in self._tracker.adopted.items():
            self._seen[known].extend(self._seen.pop(nameless))
        for i, face in enumerate(faces):
            sighting = _sighting(frame, face, measured[i])
            if wanted[i]:
                sighting = replace(sighting, embedding=embeddings[i], norm=float(norms[i]))
                sighting = replace(sighting, crop=self._crop(sighting, measured[i]) if alone[i] else None)
            self._seen.setdefault(int(numbers[i]), Sightings()).add(sighting)

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
        quality = sighting.norm * min(1.0, measured.sharpness / SHARP_ENOUGH)
        return Crop(sighting.frame, measured.crop, measured.yaw_deg, quality)

    def finish_shot(self, end: int) -> None:
        """Turns what was seen since the last cut into tracks; ``end`` is the first frame after the shot."""
        limits, faces = self._config.tracks, self._config.faces
        for number, seen in sorted(self._seen.items()):
            track_id = f"{self._clip_id}-t{number:03d}"
            num_frames = len(seen) * faces.detect_every
            if num_frames < limits.min_frames:
                self._drop(track_id, "track", "track_too_short", str(num_frames), str(limits.min_frames))
            elif not seen.is_embedded:
                self._drop(track_id, "track", "never_embedded", "0 embeddings", "at least 1")
            else:
                shot = len(self._starts) - 1
                self._tracks.append(seen.to_track(track_id, self._clip_id, shot, faces.detect_every))
        self._seen = {}
        self._tracker.cut()
        self._recorder.cut()

    def _drop(
        self, item: str, kind: Literal["clip", "track", "window"], rule: str, value: str, limit: str
    ) -> None:
        self._decisions.append(Decision(item, kind, "dropped", "analyse", rule, value, limit))

    def analysed(self, clip: Clip, source: Reading) -> AnalysedClip:
        """The whole clip, once its last shot is finished."""
        if not self._tracks:
            self._drop(clip.id, "clip", "no_face", "0 tracks", "at least 1")
        recorded = enumerate(self._recorded if self._tracks else [])
        windows = [self._window(index, shot, window) for index, (shot, window) in recorded]
        return AnalysedClip(
            clip=clip,
            width_px=self._size_px[0],
            height_px=self._size_px[1],
            times_s=source.found.times_s,
            shots=shots_between(self._starts[1:], source.found.num_frames),
            tracks=tuple(self._tracks),
            windows=tuple(window for window in windows if window is not None),
            decisions=tuple(self._decisions),
            decoder=source.decoder,
            medium=source.medium,
            fingerprint=source.found.fingerprint,
        )

    def _window(self, index: int, shot: int, recorded: Recorded) -> Window | None:
        """The window with its label map, or None and a Decision."""
        window_id = f"{self._clip_id}-w{index:03d}"
        uneven = unevenness(self._times_s[recorded.frames])
        if uneven > MAX_UNEVENNESS:
            self._drop(window_id, "window", "uneven_rate", f"{uneven:.2f}", f"{MAX_UNEVENNESS:g}")
            return None
        seen = [t for t in self._tracks if np.isin(t.frames, recorded.frames).any()]
        if not seen:
            self._drop(window_id, "window", "no_face", "0 tracks", "at least 1")
            return None
        labels = track_map(seen, recorded.frames, self._framing)
        return Window(index, shot, recorded.frames, recorded.mp4, labels, tuple(t.id for t in seen))


def _sighting(frame: int, face: SeenFace, measured: MeasuredFace | None) -> Sighting:
    if measured is None:
        return Sighting(frame, face.box_px, face.landmarks_px, face.score)
    return Sighting(
        frame=frame,
        box_px=face.box_px,
        landmarks_px=face.landmarks_px,
        score=face.score,
        outline_px=checked_outline(measured.outline_px, face.box_px),
        yaw_deg=measured.yaw_deg,
        sharpness=measured.sharpness,
    )


def track_map(tracks: Sequence[FaceTrack], frames: I32, framing: Framing) -> U8:
    """u8[T,H,W] at the bucket's size: k where ``tracks[k-1]`` is seen in front, 0 where nobody is."""
    labels = np.zeros((len(frames), framing.height_px, framing.width_px), np.uint8)
    for at, frame in enumerate(frames.tolist()):
        seen = [(slot, t, t.row(frame)) for slot, t in enumerate(tracks) if frame in t.frames]
        if seen:
            boxes_px = np.stack([t.boxes_px[row] for _, t, row in seen])
            order = back_to_front(boxes_px, np.array([t.scores[row] for _, t, row in seen], np.float32))
            drawn = draw([framing.points(t.ovals_px[row]) for _, t, row in seen], *labels.shape[1:], order)
            slots = np.array([0, *(slot + 1 for slot, _, _ in seen)], np.uint8)
            labels[at] = slots[drawn]
    return labels
