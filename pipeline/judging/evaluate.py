"""Who is recognisable in a video, and who bled into whom.

Every face of every frame is given to a member of the cast, then compared with the references of all of them. Row i,
column j of the similarity matrix is how much the face at character i looks like character j: the diagonal is
likeness, the rest is bleed. People who are missing count; where nobody was seen the answer is NaN, not zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from data_prep.faces.packs import known_pack
from data_prep.records import F32, F64, I32, U8, InputError
from pipeline.judging.confusion import (
    Counts,
    changed,
    count_people,
    misplaced,
    recognised_as,
    switches_per_1000,
)
from pipeline.judging.copying import Copying, PixelCopying, copying, pixel_ceiling, pixel_match
from pipeline.judging.drift import Drift, drift
from pipeline.judging.galleries import Gallery
from pipeline.judging.liveliness import Liveliness, expression_range, pose_range_deg
from pipeline.judging.places import by_layout, by_similarity, tracks_of
from pipeline.judging.sight import SeenFrame

LocatedBy = Literal["layout", "similarity"]


@dataclass(frozen=True)
class Scores:
    """What one recogniser says of N cast members over T frames.

    similarity: f64[N,N], mean over frames of the face at i against the references of j, NaN where i was never
    seen; margin: f64[N], own similarity minus the best other's, NaN where unseen or alone; coverage: f64[N],
    share of frames with a face at i; recognised: f64[N], share of all frames in which that face is i by the
    pack's threshold; own: f64[T,N], similarity over time, NaN where unseen; swap_rate: share of seen faces
    that are somebody else of the cast, NaN where none was seen; switches_per_1000: how often a face that stays in
    place becomes another of the cast, per 1,000 frames; identity: f32[N,D], unit mean of the faces recognised as
    i at i, NaN where none was.
    """

    pack: str
    same_person: float
    similarity: F64
    margin: F64
    coverage: F64
    recognised: F64
    own: F64
    swap_rate: float
    switches_per_1000: float
    people: Counts
    drift: Drift
    copying: Copying
    identity: F32


@dataclass(frozen=True)
class Evaluation:
    """One video. num_frames: looked at; num_faces: mean per frame, strangers included; located_by: how a face was
    given to a character; liveliness, pixels: of the faces that the first recogniser gives to each; faces:
    u8[N,112,112,3], the likest face seen of each, black where none."""

    cast: tuple[str, ...]
    num_frames: int
    num_faces: float
    located_by: LocatedBy
    scores: tuple[Scores, ...]
    liveliness: Liveliness
    pixels: PixelCopying
    faces: U8 = field(repr=False)


@dataclass(frozen=True)
class _Looked:
    """What every recogniser works on. places: per frame int32[N], the face of each character or −1, None without a
    layout; tracks: per frame int32[n], the track of each face; step: as for ``judge``."""

    seen: Sequence[SeenFrame]
    cast: tuple[str, ...]
    places: list[I32] | None
    tracks: list[I32]
    step: int


def judge(
    seen: Sequence[SeenFrame],
    galleries: Sequence[Gallery],
    cast: Sequence[str],
    layout: U8 | None = None,
    step: int = 1,
) -> Evaluation:
    """Compare what was seen in T frames, every ``step``-th of a video, with the references of the cast, once per
    gallery.

    layout: u8[H,W] or u8[T,H,W], 0 nobody, k where the k-th of the cast belongs; a face belongs to the character
    whose region holds most of its box, so that a swap is a face in the wrong place. Without one each recogniser
    gives the faces of a frame to the characters with the largest sum of similarities (Hungarian), and a swap is
    a face that stays in place while its character changes. Raises InputError for no frames, an empty cast, a
    member without references, or a layout of another length or with a slot that the cast does not have.
    """
    if not seen or not cast or not galleries:
        raise InputError(
            f"evaluate: {len(seen)} frames, a cast of {len(cast)}, {len(galleries)} galleries; one each."
        )
    places = None if layout is None else _placed(seen, layout, len(cast))
    looked = _Looked(seen, tuple(cast), places, tracks_of([frame.boxes for frame in seen]), step)
    verdicts = [_judge_with(one, looked) for one in galleries]
    scores, who = verdicts[0]
    return Evaluation(
        cast=tuple(cast),
        num_frames=len(seen),
        num_faces=float(np.mean([len(frame.boxes) for frame in seen])),
        located_by="similarity" if places is None else "layout",
        scores=tuple(scores for scores, _ in verdicts),
        liveliness=_liveliness(looked, who),
        pixels=_pixels(looked, who, galleries[0]),
        faces=_likest(looked, who, scores.own),
    )


def _placed(seen: Sequence[SeenFrame], layout: U8, num_cast: int) -> list[I32]:
    if layout.ndim == 3 and len(layout) != len(seen):
        raise InputError(f"layout: {len(layout)} maps for {len(seen)} frames; give one, or one per frame.")
    if layout.max() > num_cast:
        raise InputError(
            f"layout: slot {int(layout.max())} in it and a cast of {num_cast}; use 0 for nobody, else 1 to that."
        )
    return [
        by_layout(frame.boxes, layout if layout.ndim == 2 else layout[t], num_cast)
        for t, frame in enumerate(seen)
    ]


def _judge_with(one: Gallery, looked: _Looked) -> tuple[Scores, list[I32]]:
    """One recogniser's scores, and per frame the face int32[N] of each character, −1 where none."""
    num_cast, threshold = len(looked.cast), known_pack(one.pack).same_person
    embedded = [frame.embedded(one.pack) for frame in looked.seen]
    table = [one.similarity(rows, looked.cast) for rows in embedded]
    who = looked.places or [by_similarity(similarity) for similarity in table]
    rows = _rows(table, who, num_cast)
    own = np.array(np.diagonal(rows, axis1=1, axis2=2))
    others = np.where(np.eye(num_cast, dtype=bool), -np.inf, rows).max(2) if num_cast > 1 else own * np.nan
    recognised = np.nan_to_num(own, nan=-1.0) >= threshold
    identities = [recognised_as(similarity, threshold) for similarity in table]
    faces = [
        [embedded[t][of[i]] if of[i] >= 0 else None for t, of in enumerate(who)] for i in range(num_cast)
    ]
    swapped = misplaced(rows) if looked.places else changed(who, looked.tracks)
    scores = Scores(
        pack=one.pack,
        same_person=threshold,
        similarity=mean_over_first(rows),
        margin=mean_over_first(own - others),
        coverage=np.isfinite(own).mean(0),
        recognised=recognised.mean(0),
        own=own,
        swap_rate=float(mean_over_first(swapped.ravel())),
        switches_per_1000=switches_per_1000(identities, looked.tracks),
        people=count_people(identities, num_cast),
        drift=drift(faces, own, looked.step),
        copying=_copying(one, looked.cast, faces),
        identity=_identities(faces, recognised, one.faces[looked.cast[0]].shape[1]),
    )
    return scores, who


def _rows(table: Sequence[F64], who: Sequence[I32], num_cast: int) -> F64:
    """f64[T,N,N]: in frame t the face at i against the references of j, NaN where none is at i."""
    rows = np.full((len(who), num_cast, num_cast), np.nan)
    for t, face_of in enumerate(who):
        at = face_of >= 0
        rows[t, at] = table[t][face_of[at]]
    return rows


def _copying(one: Gallery, cast: Sequence[str], faces: Sequence[Sequence[F32 | None]]) -> Copying:
    there = [np.asarray([f for f in over_time if f is not None], np.float32) for over_time in faces]
    return copying(there, [one.faces[name] for name in cast], [one.ceiling(name) for name in cast])


def _identities(faces: list[list[F32 | None]], recognised: npt.NDArray[np.bool_], dim: int) -> F32:
    """f32[N,D]: the unit mean of each character's faces in the frames bool[T,N] in which it is recognised."""
    means = np.full((len(faces), dim), np.nan, np.float32)
    for i, over_time in enumerate(faces):
        right = [face for face, is_right in zip(over_time, recognised[:, i], strict=True) if is_right]
        if right:
            total = np.sum([face for face in right if face is not None], axis=0)
            means[i] = total / np.linalg.norm(total)
    return means


def _liveliness(looked: _Looked, who: list[I32]) -> Liveliness:
    rows = []
    for i in range(len(looked.cast)):
        shown = [(frame, of[i]) for frame, of in zip(looked.seen, who, strict=True) if of[i] >= 0]
        poses = np.asarray([f.poses_deg[k] for f, k in shown if len(f.poses_deg)], np.float32).reshape(-1, 3)
        points = [f.points_px[k] for f, k in shown if f.points_px.size]
        whole = len(points) == len(poses) and len(points) > 0
        expression = expression_range(np.asarray(points, np.float32), poses) if whole else float("nan")
        rows.append([*pose_range_deg(poses), expression])
    return Liveliness(*np.asarray(rows, np.float64).T)


def _pixels(looked: _Looked, who: list[I32], one: Gallery) -> PixelCopying:
    match, ceiling = [], []
    for i, name in enumerate(looked.cast):
        crops = np.asarray(
            [frame.crops[of[i]] for frame, of in zip(looked.seen, who, strict=True) if of[i] >= 0], np.uint8
        )
        pictured = name in one.crops
        match.append(np.median(pixel_match(crops, one.crops[name])) if pictured and len(crops) else np.nan)
        ceiling.append(pixel_ceiling(one.crops[name]) if pictured else np.nan)
    return PixelCopying(np.asarray(match, np.float64), np.asarray(ceiling, np.float64))


def _likest(looked: _Looked, who: list[I32], own: F64) -> U8:
    """u8[N,112,112,3]: the likest face seen of each character, black where none."""
    faces = np.zeros((len(looked.cast), 112, 112, 3), np.uint8)
    likeness = np.nan_to_num(own, nan=-np.inf)
    for i, t in enumerate(likeness.argmax(0)):
        if who[t][i] >= 0:
            faces[i] = looked.seen[t].crops[who[t][i]]
    return faces


def mean_over_first(values: F64) -> F64:
    """Mean over the first axis of what is not NaN; NaN where nothing is."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(0)
    return np.asarray(np.divide(total, known.sum(0), out=np.full(total.shape, np.nan), where=known.any(0)))
