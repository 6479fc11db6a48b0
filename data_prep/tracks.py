"""Follows faces from frame to frame: which detection of this frame is which track.

Pure association on arrays, without a network in it: the caller detects, asks which faces ``wanted`` an embedding,
embeds those, and calls ``step``. A track that is wrongly split costs little, since identities are linked over the
whole corpus later; two people in one track cannot be undone. So every doubt opens a new track.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from data_prep.config import TrackConfig
from data_prep.records import F32, I32

Bools = npt.NDArray[np.bool_]

STRANGER_COSINE = 0.25
"""A face in the expected place but less like the track than this is somebody else (impostors: p99 .24, max .355;
one face within a video: p1 .62, measured on 191 real faces)."""

MEMORY = 0.9
"""Weight of a track's past in its mean embedding: it follows a turning head over some ten embeddings."""


@dataclass(eq=False)
class _Live:
    """A track that may still be continued. first, seen: frames of its first and last detection; embedded: of its
    last embedding; velocity: f32[4] px a frame; memory: sum of reliable embeddings, zero if none; num_known: how
    many of them; latest: the last embedding, reliable or not, zero if none."""

    number: int
    first: int
    box_px: F32
    velocity: F32
    seen: int
    embedded: int
    memory: F32
    latest: F32
    num_known: int = 0

    def predicted(self, frame: int) -> F32:
        return np.asarray(self.box_px + self.velocity * (frame - self.seen), np.float32)


class FaceTracker:
    """Hungarian assignment of detections to tracks, by overlap with the predicted box and by embedding.

    A box is predicted with constant velocity. Two frames' faces may be one track when
    both embeddings are reliable and their cosine reaches ``min_cosine`` (also after an occlusion of at most
    ``max_gap_frames``; after a longer one, as of somebody who left and came back, it takes ``reentry_margin``
    more), or the boxes overlap by ``min_iou`` in successive detections and the embeddings, where reliable, do not
    say that it is a stranger. Of these the assignment with the greatest sum of overlap and cosine wins, likeness
    first: who looks like a lost track is that track, whatever lies nearer. Reliable: norm of at least ``min_norm``,
    where a covered face has less; 0 trusts every embedding.

    Detections may be any number of frames apart; successive ones are those of two calls of ``step``.

    A face that comes out from behind another is at first too covered to be known, and opens a track of its own.
    As soon as it is known to be a lost one, that track adopts the nameless one: see ``adopted``. One embedding that
    passed for reliable is not a name yet: half a face may be long enough and look like nobody.
    """

    def __init__(self, config: TrackConfig, embed_every: int, min_norm: float) -> None:
        self._config = config
        self._embed_every = embed_every
        self._min_norm = min_norm
        self._live: list[_Live] = []
        self._num_tracks = 0
        self._looked = -1  # frame of the last detection
        self.adopted: dict[int, int] = {}

    def cut(self) -> None:
        """Forgets every track: nobody is followed across a cut. Numbers go on."""
        self._live = []

    def wanted(self, frame: int, boxes_px: F32) -> Bools:
        """bool[n]: which of f32[n,4] detections ``step`` needs embeddings for.

        All but those that overlap no other face, meet one track alone, one that was seen in the detection before
        and whose last embedding is younger than ``embed_every`` frames.
        """
        overlap = self._overlap(frame, boxes_px) >= self._config.min_iou
        crowded = (iou(boxes_px, boxes_px) > 0).sum(1) > 1
        fresh = np.array([self._is_fresh(t, frame) for t in self._live], bool).reshape(-1, 1)
        plain = overlap & fresh & (overlap.sum(0) == 1) & (overlap.sum(1, keepdims=True) == 1)
        return np.asarray(crowded | ~plain.any(0), bool)

    def _is_fresh(self, track: _Live, frame: int) -> bool:
        return track.seen >= self._looked and frame - track.embedded < self._embed_every

    @property
    def is_unsure(self) -> bool:
        """Whether it had better see every frame: faces overlap, or one that it knows was lost a moment ago."""
        live = [t for t in self._live if self._looked - t.seen <= self._config.max_gap_frames]
        boxes_px = self.boxes_px(self._looked)
        crowded = bool((iou(boxes_px, boxes_px) > 0).sum() > len(boxes_px))
        return crowded or any(t.seen < self._looked and t.memory.any() for t in live)

    def boxes_px(self, frame: int) -> F32:
        """f32[n,4] where the faces of the last detection should be in a frame."""
        there = [t.predicted(frame) for t in self._live if t.seen >= self._looked]
        return np.asarray(there, np.float32).reshape(-1, 4)

    def step(self, frame: int, boxes_px: F32, embeddings: F32, norms: F32) -> I32:
        """int32[n] track numbers of the detections of a frame, no two alike.

        frame: above the last one; boxes_px: f32[n,4]; embeddings: f32[n,D] unit rows, zeros where not embedded;
        norms: f32[n], 0 where not embedded. Afterwards ``adopted`` maps the numbers that turned out, in this frame,
        to be an older track to that track's number; their detections belong to it and they are not used again.
        """
        self.adopted = {}
        self._live = [
            t for t in self._live if t.memory.any() or frame - t.seen <= self._config.max_gap_frames
        ]
        numbers = np.full(len(boxes_px), -1, np.int32)
        matches = self._assign(frame, boxes_px, embeddings, norms)
        for track, face in matches:
            numbers[face] = track.number
            self._adopt(track, boxes_px[face], frame, {t.number for t, _ in matches})
            self._move(track, frame, boxes_px[face])
            self._remember(track, frame, embeddings[face], float(norms[face]))
        for face in np.flatnonzero(numbers < 0).tolist():
            track = self._opened(frame, boxes_px[face], embeddings[face] * 0)
            self._remember(track, frame, embeddings[face], float(norms[face]))
            self._live.append(track)
            numbers[face] = track.number
        self._looked = frame
        return numbers

    def _opened(self, frame: int, box_px: F32, no_memory: F32) -> _Live:
        self._num_tracks += 1
        never = frame - self._embed_every  # the next sighting wants an embedding, if this one has none
        return _Live(
            self._num_tracks - 1, frame, box_px, np.zeros(4, np.float32), frame, never, no_memory, no_memory
        )

    def _move(self, track: _Live, frame: int, box_px: F32) -> None:
        # half the new velocity: one box that is off does not throw the next prediction
        step = (box_px - track.box_px) / (frame - track.seen)
        track.velocity = np.asarray((track.velocity + step) / 2, np.float32)
        track.box_px, track.seen = box_px, frame

    def _adopt(self, track: _Live, box_px: F32, frame: int, matched: set[int]) -> None:
        """Gives a track that is found again the nameless one that led to where it was found: one at most, since two
        that were seen at once are not one face."""
        nameless = [
            other
            for other in self._live
            if self._is_nameless(other, track)
            and other.number not in matched
            and other.first > track.seen
            and other.seen >= self._looked
        ]
        if not nameless:
            return
        overlap = iou(np.stack([other.predicted(frame) for other in nameless]), box_px[None])[:, 0]
        best = int(overlap.argmax())
        if overlap[best] >= self._config.min_iou:
            self.adopted[nameless[best].number] = track.number
            self._live.remove(nameless[best])

    def _is_nameless(self, other: _Live, track: _Live) -> bool:
        """Whether a track is not known to be another's: it has no reliable embedding, or one (of a face that was
        half out from behind something, say) and has since come to look like the track."""
        if other.num_known == 0:
            return True
        length = max(float(np.linalg.norm(track.memory)), 1e-9)
        return other.num_known == 1 and float(other.latest @ track.memory) / length >= self._config.min_cosine

    def _remember(self, track: _Live, frame: int, embedding: F32, norm: float) -> None:
        if norm > 0:
            track.embedded, track.latest = frame, embedding
            if norm >= self._min_norm:
                track.memory = np.asarray(track.memory * MEMORY + embedding, np.float32)
                track.num_known += 1

    def _overlap(self, frame: int, boxes_px: F32) -> F32:
        """f32[tracks,n] of the predicted boxes; 0 for who is gone: nobody keeps their course that long."""
        predicted = np.asarray([t.predicted(frame) for t in self._live], np.float32).reshape(-1, 4)
        return np.asarray(iou(predicted, boxes_px) * ~self._are_gone(frame)[:, None], np.float32)

    def _are_gone(self, frame: int) -> Bools:
        return np.array([frame - t.seen > self._config.max_gap_frames for t in self._live], bool)

    def _assign(self, frame: int, boxes_px: F32, embeddings: F32, norms: F32) -> list[tuple[_Live, int]]:
        if not self._live or not len(boxes_px):
            return []
        overlap = self._overlap(frame, boxes_px)
        memory = np.stack([t.memory for t in self._live])
        length = np.linalg.norm(memory, axis=1, keepdims=True)
        cosine = memory @ embeddings.T / np.maximum(length, 1e-9)
        known = (length > 0) & (norms > 0) & (norms >= self._min_norm)
        successive = np.array([[t.seen >= self._looked] for t in self._live])
        margin = self._are_gone(frame)[:, None] * self._config.reentry_margin
        same = known & (cosine >= self._config.min_cosine + margin)
        near = (overlap >= self._config.min_iou) & successive & (~known | (cosine >= STRANGER_COSINE))
        # overlap is at most 1: a likeness outweighs it, and what is not known counts neither for nor against
        gain = overlap + np.where(known, cosine, self._config.min_cosine) + same
        allowed = same | near
        tracks, faces = linear_sum_assignment(np.where(allowed, -gain, 1e3))
        return [(self._live[t], int(f)) for t, f in zip(tracks, faces, strict=True) if allowed[t, f]]


def iou(first_px: F32, second_px: F32) -> F32:
    """f32[n,m] intersection over union of f32[n,4] and f32[m,4] boxes; 0 for boxes without area."""
    low = np.maximum(first_px[:, None, :2], second_px[None, :, :2])
    high = np.minimum(first_px[:, None, 2:], second_px[None, :, 2:])
    inner = np.clip(high - low, 0, None).prod(-1)
    areas = [np.clip(b[:, 2:] - b[:, :2], 0, None).prod(-1) for b in (first_px, second_px)]
    union = areas[0][:, None] + areas[1][None, :] - inner
    return np.asarray(inner / np.maximum(union, 1e-9), np.float32)
