"""Who is recognisable in a video, and who bled into whom.

Every face of every frame is given to a member of the cast, then compared with the references of all of them. Row i,
column j of the similarity matrix is how much the face at character i looks like character j: the diagonal is
likeness, the rest is bleed. People who are missing count; where nobody was seen the answer is NaN, not zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from data_prep.faces import FaceAnalyser, embed_crops
from data_prep.faces.packs import known_pack
from data_prep.records import F32, F64, I32, U8, InputError
from data_prep.tracks import iou

MIN_LONG_SIDE_PX = (
    640  # smaller frames are enlarged first: the landmark model then sees more than a few pixels
)
MIN_INSIDE = 0.3  # share of a face's box that must lie in a character's region of the layout
MIN_IOU = 0.3  # from one frame to the next, for two faces to be one track

LocatedBy = Literal["layout", "similarity"]


@dataclass(frozen=True)
class Gallery:
    """The reference faces of some characters under one recogniser: unit rows f32[R,D] by name, R ≥ 1."""

    pack: str
    faces: Mapping[str, F32]

    def means(self, cast: Sequence[str]) -> F64:
        """The unit mean f64[N,D] of each member's references. Raises InputError for one without any."""
        means = []
        for name in cast:
            if name not in self.faces or len(self.faces[name]) == 0:
                raise InputError(f"--cast: no reference face of {name!r}; there are {', '.join(self.faces)}.")
            total = self.faces[name].astype(np.float64).sum(0)
            means.append(total / np.linalg.norm(total))
        return np.asarray(means, np.float64)

    def similarity(self, embeddings: F32, cast: Sequence[str]) -> F64:
        """Cosine f64[n,N] of n unit embeddings to the mean of each member's references."""
        return np.asarray(embeddings.astype(np.float64) @ self.means(cast).T)


def gallery(pack: str, crops: Mapping[str, U8]) -> Gallery:
    """Embed aligned reference crops u8[R,112,112,3] by character."""
    return Gallery(pack, {name: embed_crops(pack, faces)[0] for name, faces in crops.items()})


@dataclass(frozen=True)
class SeenFrame:
    """The n faces of one frame. boxes: f32[n,4] x1 y1 x2 y2 in shares of width and height; crops:
    u8[n,112,112,3] aligned."""

    boxes: F32
    crops: U8


@dataclass(frozen=True)
class Scores:
    """What one recogniser says of N cast members over T frames.

    similarity: f64[N,N], mean over frames of the face at i against the references of j, NaN where i was never
    seen; margin: f64[N], own similarity minus the best other's, NaN where unseen or alone; coverage: f64[N],
    share of frames with a face at i; recognised: f64[N], share of all frames in which that face is i by the
    pack's threshold; own: f64[T,N], similarity over time, NaN where unseen; swap_rate: share of seen faces
    that are somebody else of the cast, NaN where none was seen.
    """

    pack: str
    same_person: float
    similarity: F64
    margin: F64
    coverage: F64
    recognised: F64
    own: F64
    swap_rate: float


@dataclass(frozen=True)
class Evaluation:
    """One video. faces: u8[N,112,112,3], the likest face seen of each, black where none; num_faces: mean per
    frame, strangers included; located_by: how a face was given to a character."""

    cast: tuple[str, ...]
    num_frames: int
    num_faces: float
    located_by: LocatedBy
    scores: tuple[Scores, ...]
    faces: U8 = field(repr=False)


def see(frames: Iterable[U8], analyser: FaceAnalyser) -> list[SeenFrame]:
    """Find and align the faces of each frame u8[H,W,3]."""
    import cv2

    seen = []
    for frame in frames:
        scale = max(1.0, MIN_LONG_SIDE_PX / max(frame.shape[:2]))
        size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
        image = (
            frame
            if scale == 1
            else np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC), np.uint8)
        )
        faces = analyser.detect(image)
        crops = [analyser.measure(image, face).crop for face in faces]
        boxes = np.asarray([face.box_px / (*size, *size) for face in faces], np.float32).reshape(-1, 4)
        seen.append(SeenFrame(boxes, np.asarray(crops, np.uint8).reshape(-1, 112, 112, 3)))
    return seen


def judge(
    seen: Sequence[SeenFrame], galleries: Sequence[Gallery], cast: Sequence[str], layout: U8 | None = None
) -> Evaluation:
    """Compare what was seen in T frames with the references of the cast, once per gallery.

    layout: u8[H,W] or u8[T,H,W], 0 nobody, k where the k-th of the cast belongs; a face belongs to the character
    whose region holds most of its box, so that a swap is a face in the wrong place. Without one each recogniser
    gives the faces of a frame to the characters with the largest sum of similarities (Hungarian), and a swap is
    a face that stays in place while its character changes. Raises InputError for no frames, an empty cast, a
    member without references, or a layout of another length.
    """
    if not seen or not cast or not galleries:
        raise InputError(
            f"evaluate: {len(seen)} frames, a cast of {len(cast)}, {len(galleries)} galleries; one each."
        )
    if layout is not None and layout.ndim == 3 and len(layout) != len(seen):
        raise InputError(f"layout: {len(layout)} maps for {len(seen)} frames; give one, or one per frame.")
    places = (
        None
        if layout is None
        else [
            _by_layout(frame.boxes, layout if layout.ndim == 2 else layout[t], len(cast))
            for t, frame in enumerate(seen)
        ]
    )
    tracks = _tracks([frame.boxes for frame in seen])
    verdicts = [_judge_with(one, seen, tuple(cast), places, tracks) for one in galleries]
    return Evaluation(
        cast=tuple(cast),
        num_frames=len(seen),
        num_faces=float(np.mean([len(frame.boxes) for frame in seen])),
        located_by="similarity" if places is None else "layout",
        scores=tuple(scores for scores, _ in verdicts),
        faces=verdicts[0][1],
    )


def mean_of(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Several videos of one cast, say several seeds, as one: the mean over videos of every number, NaN left out;
    ``own`` is one video after the other. Raises InputError where the casts differ."""
    first = evaluations[0]
    if any(other.cast != first.cast for other in evaluations):
        raise InputError("evaluate: the videos have different casts; a mean over them says nothing.")
    scores = []
    for same_pack in zip(*(evaluation.scores for evaluation in evaluations), strict=True):
        scores.append(
            Scores(
                pack=same_pack[0].pack,
                same_person=same_pack[0].same_person,
                similarity=_mean(np.stack([s.similarity for s in same_pack])),
                margin=_mean(np.stack([s.margin for s in same_pack])),
                coverage=_mean(np.stack([s.coverage for s in same_pack])),
                recognised=_mean(np.stack([s.recognised for s in same_pack])),
                own=np.concatenate([s.own for s in same_pack]),
                swap_rate=float(_mean(np.array([s.swap_rate for s in same_pack]))),
            )
        )
    likeness = np.stack([np.nan_to_num(e.scores[0].own, nan=-1.0).max(0) for e in evaluations])
    faces = np.stack([evaluations[v].faces[i] for i, v in enumerate(likeness.argmax(0))])
    num_frames = sum(evaluation.num_frames for evaluation in evaluations)
    num_faces = float(np.mean([evaluation.num_faces for evaluation in evaluations]))
    return Evaluation(first.cast, num_frames, num_faces, first.located_by, tuple(scores), faces)


def _judge_with(
    one: Gallery,
    seen: Sequence[SeenFrame],
    cast: tuple[str, ...],
    places: list[I32] | None,
    tracks: list[I32],
) -> tuple[Scores, U8]:
    """One recogniser's scores, and the likest face of each character. places, tracks: per frame, int32[N] the
    face of each character or −1, and int32[n] the track of each face."""
    threshold = known_pack(one.pack).same_person
    table = [one.similarity(embed_crops(one.pack, frame.crops)[0], cast) for frame in seen]
    who = places or [_by_similarity(similarity) for similarity in table]
    rows = np.full((len(seen), len(cast), len(cast)), np.nan)  # frame, face at i, reference of j
    faces = np.zeros((len(cast), 112, 112, 3), np.uint8)
    best = np.full(len(cast), -np.inf)
    for t, (similarity, face_of) in enumerate(zip(table, who, strict=True)):
        for i in np.flatnonzero(face_of >= 0):
            rows[t, i] = similarity[face_of[i]]
            if rows[t, i, i] > best[i]:
                best[i], faces[i] = rows[t, i, i], seen[t].crops[face_of[i]]
    own = np.diagonal(rows, axis1=1, axis2=2)
    others = np.where(np.eye(len(cast), dtype=bool), -np.inf, rows).max(2) if len(cast) > 1 else own * np.nan
    swapped = _misplaced(rows) if places else _changed(who, tracks)
    scores = Scores(
        pack=one.pack,
        same_person=threshold,
        similarity=_mean(rows),
        margin=_mean(own - others),
        coverage=np.isfinite(own).mean(0),
        recognised=(np.nan_to_num(own, nan=-1.0) >= threshold).mean(0),
        own=np.array(own),
        swap_rate=float(_mean(swapped.ravel())),
    )
    return scores, faces


def _by_similarity(similarity: F64) -> I32:
    """int32[N]: the face of each character, −1 for none, with the largest sum of similarities f64[n,N]."""
    face_of = np.full(similarity.shape[1], -1, np.int32)
    faces, characters = linear_sum_assignment(similarity, maximize=True)
    face_of[characters] = faces
    return face_of


def _by_layout(boxes: F32, regions: U8, num_cast: int) -> I32:
    """int32[N]: the face whose box lies most in each character's region, −1 where none holds MIN_INSIDE of one."""
    height, width = regions.shape
    inside = np.zeros((len(boxes), num_cast))
    for face, (x1, y1, x2, y2) in enumerate(np.clip(boxes, 0, 1) * (width, height, width, height)):
        window = regions[
            int(y1) : max(int(np.ceil(y2)), int(y1) + 1), int(x1) : max(int(np.ceil(x2)), int(x1) + 1)
        ]
        counts = np.bincount(window.ravel(), minlength=num_cast + 1)[1 : num_cast + 1]
        inside[face] = counts / max(window.size, 1)
    face_of = _by_similarity(inside)
    held = np.array([face >= 0 and inside[face, i] >= MIN_INSIDE for i, face in enumerate(face_of)], bool)
    return np.where(held, face_of, -1).astype(np.int32)


def _tracks(boxes: Sequence[F32]) -> list[I32]:
    """int32[n] per frame: faces that overlap from one frame to the next share a number."""
    tracks: list[I32] = []
    fresh = 0
    for t, now in enumerate(boxes):
        mine = np.full(len(now), -1, np.int32)
        if t and len(now) and len(boxes[t - 1]):
            overlap = iou(boxes[t - 1], now)
            for before, after in zip(*linear_sum_assignment(overlap, maximize=True), strict=True):
                if overlap[before, after] >= MIN_IOU:
                    mine[after] = tracks[-1][before]
        for face in np.flatnonzero(mine < 0):
            mine[face], fresh = fresh, fresh + 1
        tracks.append(mine)
    return tracks


def _misplaced(rows: F64) -> F64:
    """f64[T,N]: 1 where the face at i looks most like another of the cast, NaN where none is seen."""
    unseen = np.isnan(rows[:, :, 0])
    closest = np.where(np.isnan(rows), -np.inf, rows).argmax(2)
    return np.where(unseen, np.nan, closest != np.arange(rows.shape[1]))


def _changed(who: Sequence[I32], tracks: Sequence[I32]) -> F64:
    """f64[T,N]: 1 where the face given to i is of a track that mostly was another's, NaN where none is seen."""
    num_tracks = 1 + max((int(mine.max()) for mine in tracks if len(mine)), default=0)
    votes: npt.NDArray[np.int64] = np.zeros((num_tracks, len(who[0])), np.int64)
    for face_of, mine in zip(who, tracks, strict=True):
        for i in np.flatnonzero(face_of >= 0):
            votes[mine[face_of[i]], i] += 1
    owner = votes.argmax(1)
    changed = np.full((len(who), len(who[0])), np.nan)
    for t, (face_of, mine) in enumerate(zip(who, tracks, strict=True)):
        for i in np.flatnonzero(face_of >= 0):
            changed[t, i] = float(owner[mine[face_of[i]]] != i)
    return changed


def _mean(values: F64) -> F64:
    """Mean over the first axis of what is not NaN; NaN where nothing is."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(0)
    return np.asarray(np.divide(total, known.sum(0), out=np.full(total.shape, np.nan), where=known.any(0)))
