"""References: 3 to 5 faces per character of a window, never from the frames that are trained on.

A model that is shown a face from the very frames it must paint learns to copy them. So a reference lies outside
the window's span of its source, of the same shot only beyond a guard gap, is surely the same person (lower
bound) and surely not the same picture (upper bound). Where too few are left the window is dropped with the rule
and the number; there is no fall-back.

What is chosen: the best origin first (another clip of the source, a clip of another source, another shot, the
same shot), a worse origin only while the better ones give fewer than ``min_count``; within an origin greedily by
quality plus distance in yaw from those already chosen, leaving out pictures that nearly repeat one of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from data_prep.config import ReferenceConfig
from data_prep.records import F32, AnalysedClip, Decision, Origin
from data_prep.shards import ReferenceNote
from data_prep.shards.sample import REFERENCE_PX

YAW_SPREAD_DEG = 30.0  # two references this far apart in yaw count as fully different views


@dataclass(frozen=True)
class Candidate:
    """A face that could serve: ``crop`` is its place in the track's crops; source_time_s: in the source;
    embedding: f32[D] unit; span_s: the clip's span in the source; size_px: shorter side of its box."""

    character_id: str
    clip_id: str
    source_id: str
    track_id: str
    shot: int
    crop: int
    frame: int
    time_s: float
    source_time_s: float
    span_s: tuple[float, float]
    score: float
    norm: float
    sharpness: float
    size_px: float
    yaw_deg: float
    embedding: F32 = field(repr=False)


@dataclass(frozen=True)
class Target:
    """One character in one window. first_s and last_s: source time of the window's first and last frame;
    span_s: its clip's span in the source; faces: f32[n,D], unit, n >= 1: the character's faces in the window."""

    window_id: str
    character_id: str
    clip_id: str
    source_id: str
    shot: int
    first_s: float
    last_s: float
    span_s: tuple[float, float]
    yaw_deg: float
    faces: F32 = field(repr=False)

    @property
    def face(self) -> F32:
        """f32[D], the unit mean of the faces."""
        mean = self.faces.mean(0)
        return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9), np.float32)


@dataclass(frozen=True)
class Pick:
    """A chosen reference: what the shard says of it, and which crop of its track it is."""

    note: ReferenceNote
    crop: int


@dataclass(frozen=True)
class _Fit:
    candidate: Candidate
    origin: Origin
    tier: int
    gap_s: float | None
    similarity: float
    quality: float

    @property
    def order(self) -> tuple[str, str, int]:
        return self.candidate.clip_id, self.candidate.track_id, self.candidate.frame


def candidates_of(clip: AnalysedClip, character_of: Mapping[str, str]) -> list[Candidate]:
    """All crops of a clip's tracks that belong to a character and carry an embedding."""
    found = []
    for track in clip.tracks:
        if track.id not in character_of:
            continue
        for crop, frame in enumerate(track.crop_frames):
            row = track.row(int(frame))
            if not track.embedded[row]:
                continue
            found.append(
                Candidate(
                    character_id=character_of[track.id],
                    clip_id=clip.clip.id,
                    source_id=clip.clip.source_id,
                    track_id=track.id,
                    shot=track.shot,
                    crop=crop,
                    frame=int(frame),
                    time_s=float(clip.times_s[frame]),
                    source_time_s=clip.clip.start_s + float(clip.times_s[frame]),
                    span_s=(clip.clip.start_s, clip.clip.end_s),
                    score=float(track.scores[row]),
                    norm=float(track.norms[row]),
                    sharpness=float(track.sharpness[row]),
                    size_px=float((track.boxes_px[row, 2:] - track.boxes_px[row, :2]).min()),
                    yaw_deg=float(track.yaw_deg[row]),
                    embedding=track.embeddings[row].copy(),
                )
            )
    return found


def choose(
    target: Target, candidates: Sequence[Candidate], config: ReferenceConfig
) -> tuple[Pick, ...] | Decision:
    """References for one character of one window, best first, or the decision that drops the window."""
    refused: Counter[str] = Counter()
    fitting: list[_Fit] = []
    stack = np.stack([c.embedding for c in candidates]) if candidates else np.zeros((0, target.face.shape[0]))
    to_mean, to_closest = stack @ target.face, (stack @ target.faces.T).max(axis=1, initial=-1.0)
    for candidate, similarity, closest in zip(candidates, to_mean, to_closest, strict=True):
        origin, tier = origin_of(target, candidate)
        gap_s = time_gap_s(target, candidate)
        reason = _place_refusal(target, candidate, gap_s, config) or _face_refusal(
            candidate, float(similarity), float(closest), config
        )
        if reason:
            refused[reason] += 1
        else:
            fit = _Fit(candidate, origin, tier, gap_s, float(similarity), _quality(candidate, config))
            fitting.append(fit)
    chosen = _spread(fitting, config)
    if len(chosen) < config.min_count:
        near = len(fitting) - len(chosen)
        return _too_few(target, len(chosen), refused + Counter({"nearly repeats another": near}), config)
    return tuple(Pick(_note(target, fit), fit.candidate.crop) for fit in chosen)


def origin_of(target: Target, candidate: Candidate) -> tuple[Origin, int]:
    """Where a candidate comes from as seen from the window, and its rank: 0 is best."""
    if candidate.clip_id != target.clip_id:
        return "other_clip", 0 if candidate.source_id == target.source_id else 1
    return ("other_shot", 2) if candidate.shot != target.shot else ("same_shot", 3)


def time_gap_s(target: Target, candidate: Candidate) -> float | None:
    """Seconds of the source between a candidate and the window's nearest frame, to 0.1 ms as shards keep it; 0
    within the window's span, None where the sources differ."""
    if candidate.source_id != target.source_id:
        return None
    at = candidate.source_time_s
    return round(max(target.first_s - at, at - target.last_s, 0.0), 4)


def _place_refusal(target: Target, candidate: Candidate, gap_s: float | None, config: ReferenceConfig) -> str:
    """Clips of one source that overlap in time show the same frames, so they count as one shot."""
    if gap_s is None:
        return ""
    if gap_s <= 0.0:
        return "inside the window"
    same_clip = candidate.clip_id == target.clip_id
    overlap = min(candidate.span_s[1], target.span_s[1]) > max(candidate.span_s[0], target.span_s[0])
    same_shot = candidate.shot == target.shot if same_clip else overlap
    return f"within {config.guard_gap_s:g} s" if same_shot and gap_s < config.guard_gap_s else ""


def _face_refusal(candidate: Candidate, similarity: float, closest: float, config: ReferenceConfig) -> str:
    limits = (
        (candidate.score < config.min_score, f"score < {config.min_score:g}"),
        (candidate.norm < config.min_norm, f"norm < {config.min_norm:g}"),
        (candidate.sharpness < config.min_sharpness, f"sharpness < {config.min_sharpness:g}"),
        (candidate.size_px < config.min_size_px, f"size < {config.min_size_px:g} px"),
        (similarity < config.min_similarity, f"similarity < {config.min_similarity:g}"),
        (max(similarity, closest) > config.max_similarity, f"similarity > {config.max_similarity:g}"),
    )
    return next((name for broken, name in limits if broken), "")


def _quality(candidate: Candidate, config: ReferenceConfig) -> float:
    """0..1: mean of score, norm, sharpness and size; full at twice and eight times their limit, and at 112 px."""
    size = min(1.0, candidate.size_px / REFERENCE_PX)
    norm = min(1.0, candidate.norm / max(2 * config.min_norm, 1e-9))
    sharpness = min(1.0, candidate.sharpness / max(8 * config.min_sharpness, 1e-9))
    return (candidate.score + norm + sharpness + size) / 4


def _spread(fitting: Sequence[_Fit], config: ReferenceConfig) -> list[_Fit]:
    chosen: list[_Fit] = []
    for tier in range(4):
        left = sorted((fit for fit in fitting if fit.tier == tier), key=lambda fit: fit.order)
        if len(chosen) >= config.min_count:
            break
        while len(chosen) < config.max_count:
            left = [fit for fit in left if not _repeats(fit, chosen, config.max_similarity)]
            if not left:
                break
            best = max(left, key=lambda fit: fit.quality + _yaw_distance(fit, chosen))
            chosen.append(best)
    return chosen


def _repeats(fit: _Fit, chosen: Sequence[_Fit], max_similarity: float) -> bool:
    one = fit.candidate.embedding
    return any(fit is other or float(one @ other.candidate.embedding) > max_similarity for other in chosen)


def _yaw_distance(fit: _Fit, chosen: Sequence[_Fit]) -> float:
    apart = [abs(fit.candidate.yaw_deg - other.candidate.yaw_deg) for other in chosen]
    return min(min(apart, default=0.0) / YAW_SPREAD_DEG, 1.0)


def _too_few(target: Target, count: int, refused: Counter[str], config: ReferenceConfig) -> Decision:
    reasons = ", ".join(f"{number} {name}" for name, number in sorted(refused.items()) if number)
    return Decision(
        item=target.window_id,
        kind="window",
        fate="dropped",
        stage="select",
        rule="too_few_references",
        value=str(count),
        limit=f">= {config.min_count}",
        detail=f"{target.character_id}: {reasons or 'seen nowhere else'}",
    )


def _note(target: Target, fit: _Fit) -> ReferenceNote:
    candidate = fit.candidate
    return ReferenceNote(
        character_id=candidate.character_id,
        clip_id=candidate.clip_id,
        source_id=candidate.source_id,
        track_id=candidate.track_id,
        frame=candidate.frame,
        time_s=round(candidate.time_s, 4),
        origin=fit.origin,
        time_gap_s=fit.gap_s,
        similarity=round(fit.similarity, 4),
        yaw_deg=round(candidate.yaw_deg, 1),
        yaw_difference_deg=round(candidate.yaw_deg - target.yaw_deg, 1),
        sharpness=round(candidate.sharpness, 1),
        size_px=round(candidate.size_px, 1),
    )
