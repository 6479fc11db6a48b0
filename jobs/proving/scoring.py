"""From what judging says of each video to the figures of a row.

Every place where somebody was asked for is a slot. Its face is compared with everybody who plays, cast or not: it
is right where it is likest whom it should be, and a place without a face is wrong. All figures are means over
videos (prompts and seeds), with the bootstrap interval of judging.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_prep.records import F64, U8
from jobs.proving.casting import Asked
from pipeline.judging.evaluate import Scores, judge
from pipeline.judging.galleries import Gallery
from pipeline.judging.intervals import Interval, interval
from pipeline.judging.sight import SeenFrame

MISSING = "nobody"


@dataclass(frozen=True)
class SlotVerdict:
    """What one recogniser says of the face in one place. similarity: to each of everybody, NaN where no face was
    seen; seen, recognised: shares of the frames with a face, and with one that is ``name`` by the pack's threshold;
    steadiness: cosine between the faces of successive frames, NaN where seen once."""

    name: str
    similarity: tuple[float, ...]
    seen: float
    recognised: float
    steadiness: float


@dataclass(frozen=True)
class VideoVerdict:
    """One video by every pack; slots: from left to right."""

    group: str
    cast: tuple[str, ...]
    backdrop: str
    seed: int
    slots: Mapping[str, tuple[SlotVerdict, ...]]


def verdict_of(
    seen: Sequence[SeenFrame], galleries: Sequence[Gallery], asked: Asked, seed: int
) -> VideoVerdict:
    """Judges the frames of one video. Raises InputError as ``judge``."""
    everybody = list(galleries[0].faces)
    others = [name for name in everybody if name not in asked.cast]
    judged = judge(seen, galleries, [*asked.cast, *others], places(len(asked.cast)))
    slots = {scores.pack: _slots(scores, judged.cast, asked, everybody) for scores in judged.scores}
    return VideoVerdict(asked.group, asked.cast, asked.backdrop, seed, slots)


def places(num_cast: int) -> U8:
    """u8[1,12]: where each of a cast belongs, from left to right in equal parts."""
    return np.repeat(np.arange(1, num_cast + 1, dtype=np.uint8), 12 // num_cast)[None]


def _slots(
    scores: Scores, order: Sequence[str], asked: Asked, everybody: Sequence[str]
) -> tuple[SlotVerdict, ...]:
    columns = [order.index(name) for name in everybody]
    return tuple(
        SlotVerdict(
            name=name,
            similarity=tuple(float(value) for value in scores.similarity[i, columns]),
            seen=float(scores.coverage[i]),
            recognised=float(scores.recognised[i]),
            steadiness=float(scores.drift.steadiness[i]),
        )
        for i, name in enumerate(asked.cast)
    )


@dataclass(frozen=True)
class Figures:
    """Of one row, group and pack. right: likest whom it should be; recognised: so by the threshold too; swap: of
    the faces seen, likest another of the cast; coverage: places with a face; margin: own similarity minus that of
    the likest other of everybody, by character too; likeness: own similarity; steadiness: see ``SlotVerdict``."""

    num_videos: int
    right: Interval
    recognised: Interval
    swap: Interval
    coverage: Interval
    margin: Interval
    likeness: Interval
    steadiness: Interval
    margin_of: Mapping[str, float]


def figures(videos: Sequence[VideoVerdict], pack: str, everybody: Sequence[str]) -> Figures:
    """The figures of some videos by one recogniser."""
    rows = [[_slot_figures(slot, video.cast, everybody) for slot in video.slots[pack]] for video in videos]
    means = {
        name: interval([_mean([slot[name] for slot in video]) for video in rows])
        for name in ("right", "recognised", "swap", "coverage", "margin", "likeness", "steadiness")
    }
    by_name: dict[str, list[float]] = {}
    for video, slots in zip(videos, rows, strict=True):
        for name, slot in zip(video.cast, slots, strict=True):
            by_name.setdefault(name, []).append(slot["margin"])
    return Figures(
        num_videos=len(videos),
        margin_of={name: _mean(values) for name, values in sorted(by_name.items())},
        **means,
    )


def _slot_figures(slot: SlotVerdict, cast: Sequence[str], everybody: Sequence[str]) -> dict[str, float]:
    similar = dict(zip(everybody, slot.similarity, strict=True))
    own = similar[slot.name]
    if np.isnan(own):
        nothing = dict.fromkeys(("swap", "margin", "likeness", "steadiness"), float("nan"))
        return {"right": 0.0, "recognised": 0.0, "coverage": slot.seen, **nothing}
    likest = max(similar, key=lambda name: similar[name])
    return {
        "right": slot.seen * (likest == slot.name),
        "recognised": slot.recognised,
        "coverage": slot.seen,
        "swap": float(max(cast, key=lambda name: similar[name]) != slot.name),
        "margin": own - max(value for name, value in similar.items() if name != slot.name),
        "likeness": own,
        "steadiness": slot.steadiness,
    }


def confusion(videos: Sequence[VideoVerdict], pack: str, everybody: Sequence[str]) -> F64:
    """f64[M,M+1]: of the places where the row's character was asked for, the share whose face is likest the
    column's; the last column: no face. NaN rows for who was not asked for."""
    counts = np.zeros((len(everybody), len(everybody) + 1))
    for video in videos:
        for slot in video.slots[pack]:
            unseen = np.isnan(slot.similarity[0])
            column = len(everybody) if unseen else int(np.argmax(slot.similarity))
            counts[everybody.index(slot.name), column] += 1
    total = counts.sum(1, keepdims=True)
    shares = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    return np.asarray(shares, np.float64)


def _mean(values: Sequence[float]) -> float:
    """Of what is not NaN; NaN where nothing is."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
