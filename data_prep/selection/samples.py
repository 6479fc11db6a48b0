"""From windows to samples: the cast of a window, its label map, its references and its caption.

Selecting is apart from building. A ``Plan`` says everything about a sample without holding a pixel, so that the
whole corpus can be selected in one process; ``build`` turns one plan into a ``Sample`` with the bytes of its clip
and of the tracks its references come from, one at a time, wherever shards are written.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from data_prep.analysis.quality import judge, shot_id
from data_prep.config import PrepareConfig, ReferenceConfig, WindowConfig
from data_prep.records import F32, F64, U8, AnalysedClip, Decision, FaceTrack, Window
from data_prep.selection.captions import identity_sentences, training_caption
from data_prep.selection.references import Candidate, Pick, Target, choose
from data_prep.selection.regions import REGIONS
from data_prep.shards import CastMember, Sample, SampleNote
from data_prep.shards.sample import MAX_KEY

Box = tuple[float, float, float, float]
LONGEST_ID = MAX_KEY - 5  # of a clip, in a key: the window's number follows
LABELS_PER_BYTE, REFERENCE_BYTES, NOTE_BYTES = 100, 20_000, 10_000  # medians of 46 samples of real people


@dataclass(frozen=True)
class CropAddress:
    """Where the picture of a reference lies: crop ``crop`` of a track of a clip."""

    clip_id: str
    track_id: str
    crop: int


@dataclass(frozen=True)
class Plan:
    """A sample to be built. slots: by track id, where it is painted; crops: per slot, where its references lie;
    num_bytes: about what it takes in a shard."""

    note: SampleNote
    caption: str
    slots: tuple[tuple[str, int], ...]
    crops: tuple[tuple[CropAddress, ...], ...]
    num_bytes: int


@dataclass(frozen=True)
class Seen:
    """Someone in a window. character_id is empty for a track that could not be linked. boxes_px: f64[T,4], NaN
    where not seen, in pixels of the window; areas_px: i64[T]."""

    character_id: str
    track_ids: tuple[str, ...]
    boxes_px: F64
    areas_px: npt.NDArray[np.int64]

    @property
    def visible(self) -> float:
        """Share of the frames in which they are seen."""
        return float((self.areas_px > 0).mean())

    @property
    def side_px(self) -> float:
        """Median over the frames they are seen in of the shorter side of the face."""
        x1, y1, x2, y2 = self.boxes_px[self.areas_px > 0].T
        return float(np.median(np.minimum(x2 - x1, y2 - y1))) if len(x1) else 0.0

    @property
    def prominence(self) -> float:
        """Mean area over all frames."""
        return float(self.areas_px.mean())


def select(
    clip: AnalysedClip,
    character_of: Mapping[str, str],
    candidates: Mapping[str, Sequence[Candidate]],
    config: PrepareConfig,
    excluded: Container[str] = frozenset(),
) -> tuple[list[Plan], list[Decision]]:
    """Plans for the windows of one clip, and a decision for every shot and window: kept, or dropped and why.

    ``character_of``: character id by track id; ``candidates``: those of the whole corpus, by character;
    ``excluded``: tracks of people who are not to be trained on, so that no window shows them.
    """
    plans: list[Plan] = []
    decisions = judge(clip, config.quality)
    unfit = {decision.item: decision for decision in decisions if decision.fate == "dropped"}
    for window in clip.windows:
        bad = unfit.get(shot_id(clip.clip.id, window.shot))
        made = (
            _shows_excluded(clip, window, excluded)
            or (_in_bad_shot(clip, window, bad) if bad else None)
            or _plan(clip, window, character_of, candidates, config)
        )
        if isinstance(made, Plan):
            plans.append(made)
            key = made.note.key
            decisions.append(Decision(item=key, kind="sample", fate="kept", stage="select"))
        else:
            decisions.append(made)
    return plans, decisions


def build(plan: Plan, clip: AnalysedClip, crop_of: Callable[[CropAddress], U8]) -> Sample:
    """The sample of a plan. ``clip`` is the one the plan names; ``crop_of`` fetches a reference's picture. Masks
    grow from faces to whole people here, where that is wanted: by now it is known who is whom."""
    window = next(window for window in clip.windows if window.index == plan.note.window)
    return Sample(
        note=plan.note,
        mp4=window.mp4,
        label_map=REGIONS[plan.note.mask_region](label_map(window, dict(plan.slots)), window.mp4),
        references=tuple(np.stack([crop_of(place) for place in slot]) for slot in plan.crops),
        caption=plan.caption,
    )


def label_map(window: Window, slots: Mapping[str, int]) -> U8:
    """u8[T,H,W]: the window's track map with every track replaced by its slot, and 0 for who has none."""
    table = np.zeros(len(window.tracks) + 1, np.uint8)
    for at, track_id in enumerate(window.tracks, 1):
        table[at] = slots.get(track_id, 0)
    return np.asarray(table[window.track_map], np.uint8)


def people_in(window: Window, character_of: Mapping[str, str]) -> list[Seen]:
    """Everyone in a window, the most prominent first (ties by id). Tracks of one character are one person; a
    track without a character stands alone."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for at, track_id in enumerate(window.tracks, 1):
        character_id = character_of.get(track_id, "")
        groups[(character_id, "" if character_id else track_id)].append(at)
    people = []
    for (character_id, _), places in groups.items():
        masks = np.isin(window.track_map, places)
        track_ids = tuple(window.tracks[at - 1] for at in places)
        people.append(Seen(character_id, track_ids, mask_boxes(masks), masks.sum(axis=(1, 2))))
    return sorted(people, key=lambda seen: (-seen.prominence, seen.character_id, seen.track_ids))


def mask_boxes(masks: npt.NDArray[np.bool_]) -> F64:
    """f64[T,4] bounding boxes x1 y1 x2 y2 of bool[T,H,W], NaN where a frame is empty."""
    boxes = np.full((len(masks), 4), np.nan)
    for at, mask in enumerate(masks):
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        if len(columns):
            boxes[at] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def sample_key(clip_id: str, window: int) -> str:
    """A key that is unique, sorts by clip and window, and holds no dot; a clip id with other characters than
    letters, digits, - and _, or one that is too long for a tar, gets a hash instead."""
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", clip_id)
    if safe != clip_id or len(safe) > LONGEST_ID:
        safe = safe[: LONGEST_ID - 9] + "-" + hashlib.sha256(clip_id.encode()).hexdigest()[:8]
    return f"{safe}-{window:04d}"


def expected_bytes(mp4: int, label_pixels: int, references: int) -> int:
    """Bytes of a sample in a shard, before it is encoded: its video is known, its pictures are of a usual size."""
    return mp4 + label_pixels // LABELS_PER_BYTE + references * REFERENCE_BYTES + NOTE_BYTES


def _shows_excluded(clip: AnalysedClip, window: Window, excluded: Container[str]) -> Decision | None:
    """However briefly and small somebody who is excluded is seen, the window is not trained on."""
    for at, track_id in enumerate(window.tracks, 1):
        frames = int((window.track_map == at).any(axis=(1, 2)).sum()) if track_id in excluded else 0
        if frames:
            key = sample_key(clip.clip.id, window.index)
            return _dropped(key, "excluded_character", f"{frames} frames", "0", track_id)
    return None


def _plan(
    clip: AnalysedClip,
    window: Window,
    character_of: Mapping[str, str],
    candidates: Mapping[str, Sequence[Candidate]],
    config: PrepareConfig,
) -> Plan | Decision:
    key = sample_key(clip.clip.id, window.index)
    people = [seen for seen in people_in(window, character_of) if _counts(seen, config.windows)]
    stranger = next((seen for seen in people if not seen.character_id), None)
    if stranger:
        value = f"{stranger.side_px:.0f} px"
        return _dropped(key, "unidentified_face", value, f"< {config.windows.min_face_px:g} px")
    if not people:
        return _dropped(key, "nobody", "0", ">= 1 face")
    people = people[: config.windows.max_cast]
    picks: list[tuple[Pick, ...]] = []
    for seen in people:
        target = _target(key, clip, window, seen, config.link.min_norm)
        if isinstance(target, Decision):
            return target
        chosen = choose(target, candidates.get(seen.character_id, ()), config.references)
        if isinstance(chosen, Decision):
            return chosen
        picks.append(chosen)
    return _assemble(clip, window, people, picks, config)


def _in_bad_shot(clip: AnalysedClip, window: Window, why: Decision) -> Decision:
    return _dropped(
        sample_key(clip.clip.id, window.index), f"shot_{why.rule}", why.value, why.limit, why.item
    )


def _counts(seen: Seen, config: WindowConfig) -> bool:
    return seen.visible >= config.min_visible and seen.side_px >= config.min_face_px


def _target(key: str, clip: AnalysedClip, window: Window, seen: Seen, min_norm: float) -> Target | Decision:
    """What references are compared with: the person's usable faces between the window's first and last frame."""
    first, last = int(window.frames[0]), int(window.frames[-1])
    faces: list[F32] = []
    yaws: list[F32] = []
    for track in clip.tracks:
        if track.id in seen.track_ids:
            rows = _usable_rows(track, first, last, min_norm)
            faces.append(track.embeddings[rows])
            yaws.append(track.yaw_deg[rows])
    stacked = np.concatenate(faces)
    if not len(stacked):
        return _dropped(key, "no_usable_face", "0", ">= 1", f"{seen.character_id}: covered, cut or blurred")
    return Target(
        window_id=key,
        character_id=seen.character_id,
        clip_id=clip.clip.id,
        source_id=clip.clip.source_id,
        shot=window.shot,
        first_s=clip.clip.start_s + float(clip.times_s[first]),
        last_s=clip.clip.start_s + float(clip.times_s[last]),
        span_s=(clip.clip.start_s, clip.clip.end_s),
        yaw_deg=float(np.concatenate(yaws).mean()),
        faces=stacked,
    )


def _usable_rows(track: FaceTrack, first: int, last: int, min_norm: float) -> npt.NDArray[np.int64]:
    inside = (track.frames >= first) & (track.frames <= last)
    return np.flatnonzero(inside & track.embedded & (track.norms >= min_norm))


def _assemble(
    clip: AnalysedClip,
    window: Window,
    people: Sequence[Seen],
    picks: Sequence[tuple[Pick, ...]],
    config: PrepareConfig,
) -> Plan:
    times_s = clip.times_s[window.frames]
    centres = [float(np.nanmean(seen.boxes_px[:, [0, 2]])) for seen in people]
    sentences = identity_sentences(centres, clip.clip.captions)
    num_frames, height_px, width_px = window.track_map.shape
    note = SampleNote(
        key=sample_key(clip.clip.id, window.index),
        clip_id=clip.clip.id,
        source_id=clip.clip.source_id,
        shot=window.shot,
        window=window.index,
        start_s=round(clip.clip.start_s + float(times_s[0]), 4),
        end_s=round(clip.clip.start_s + float(times_s[-1]), 4),
        frames=tuple(int(frame) for frame in window.frames),
        frame_times_s=tuple(round(float(time), 4) for time in times_s),
        fps=round((num_frames - 1) / float(times_s[-1] - times_s[0]), 3) if num_frames > 1 else clip.clip.fps,
        width_px=width_px,
        height_px=height_px,
        cast=tuple(
            CastMember(slot, seen.character_id, sentence)
            for slot, (seen, sentence) in enumerate(zip(people, sentences, strict=True), 1)
        ),
        references=tuple(tuple(pick.note for pick in slot) for slot in picks),
        boxes_px=tuple(_note_boxes(seen.boxes_px) for seen in people),
        captions=clip.clip.captions,
        guard_gap_s=config.references.guard_gap_s,
        similarity_bounds=_bounds(config.references),
        mask_region=config.masks.region,
        licence=clip.clip.licence,
        consent=clip.clip.consent,
    )
    return Plan(
        note=note,
        caption=training_caption(sentences, clip.clip.captions),
        slots=tuple((track, slot) for slot, seen in enumerate(people, 1) for track in seen.track_ids),
        crops=tuple(
            tuple(CropAddress(p.note.clip_id, p.note.track_id, p.crop) for p in slot) for slot in picks
        ),
        num_bytes=expected_bytes(len(window.mp4), window.track_map.size, sum(map(len, picks))),
    )


def _bounds(config: ReferenceConfig) -> tuple[float, float]:
    """As notes keep similarities, to four digits: what selecting let pass, packing does too."""
    return math.floor(config.min_similarity * 1e4) / 1e4, math.ceil(config.max_similarity * 1e4) / 1e4


def _note_boxes(boxes_px: F64) -> tuple[Box | None, ...]:
    return tuple(None if np.isnan(box).any() else cast(Box, tuple(box.tolist())) for box in boxes_px)


def _dropped(key: str, rule: str, value: str, limit: str, detail: str = "") -> Decision:
    return Decision(
        item=key,
        kind="window",
        fate="dropped",
        stage="select",
        rule=rule,
        value=value,
        limit=limit,
        detail=detail,
    )
