"""How well preparation tells who is who, against the truth of clips that were made: recall, accuracy, switches.

Names come from the truth at a track's boxes, frame by frame; a character is matched to the one name that most of
its tracks' frames show (Hungarian, so that two characters never share a name).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from data_prep.footage import ClipTruth
from data_prep.records import F32, AnalysedClip, FaceTrack

SEEN = 0.9
"""Share of a face that must be uncovered for it to have to be found."""
SHORTEST = 5
"""Frames that a person must be seen for in a clip to be one of its characters, as ``tracks.min_frames``."""


@dataclass(frozen=True)
class Score:
    """Of one clip. recall: found of faces, those of which SEEN is uncovered; right of tracks: whose character is
    who they show; track_switches, name_switches: how often a person's track within a shot, or their character,
    changes from one frame they are found in to the next; people, characters: counts of this clip."""

    clip_id: str
    frames: int
    faces: int
    found: int
    tracks: int
    right: int
    pure: int
    track_switches: int
    name_switches: int
    people: int
    characters: int


def names_at(track: FaceTrack, truth: ClipTruth) -> dict[int, str]:
    """By frame, who the truth has where the track's box is; frames without anybody there are left out."""
    names = {}
    for frame, box in zip(track.frames, track.boxes_px, strict=True):
        overlap = _iou(box, truth.boxes_px[frame]) * (truth.visibility[frame] > 0.2)
        if overlap.size and overlap.max() > 0.3:
            names[int(frame)] = truth.people[int(overlap.argmax())]
    return names


def score(
    clips: Sequence[AnalysedClip], truths: Mapping[str, ClipTruth], character_of: Mapping[str, str]
) -> list[Score]:
    """One Score per clip, in order. character_of: character id by track id; a track without one counts as wrong."""
    names = {t.id: names_at(t, truths[clip.clip.id]) for clip in clips for t in clip.tracks}
    name_of = _matched(character_of, names)
    return [_score(clip, truths[clip.clip.id], names, character_of, name_of) for clip in clips]


def table(scores: Sequence[Score]) -> str:
    """The scores as lines of text, the sums last."""
    head = f"{'clip':24s} frames   recall  tracks right  pure  switches: track  name  people characters"
    lines = [head]
    total = [sum(getattr(s, name) for s in scores) for name in list(vars(scores[0]))[1:]]
    for one in [*scores, Score("all", *total)]:
        recall = one.found / max(one.faces, 1)
        lines.append(
            f"{one.clip_id:24s} {one.frames:6d} {recall:8.3f} {one.tracks:7d} {one.right:5d} {one.pure:5d}"
            f" {one.track_switches:16d} {one.name_switches:5d} {one.people:7d} {one.characters:10d}"
        )
    whole = Score("all", *total)
    counted = sum(s.people == s.characters for s in scores)
    lines.append(
        f"recall {whole.found / whole.faces:.4f} ({whole.found} of {whole.faces} faces); identity right for "
        f"{whole.right} of {whole.tracks} tracks; per 1,000 frames "
        f"{1000 * whole.track_switches / whole.frames:.2f} track and "
        f"{1000 * whole.name_switches / whole.frames:.2f} identity switches; "
        f"character count right in {counted} of {len(scores)} clips"
    )
    return "\n".join(lines)


def _score(
    clip: AnalysedClip,
    truth: ClipTruth,
    names: Mapping[str, dict[int, str]],
    character_of: Mapping[str, str],
    name_of: Mapping[str, str],
) -> Score:
    shown = {t.id: Counter(names[t.id].values()).most_common(1)[0] for t in clip.tracks if names[t.id]}
    by_person: dict[str, dict[int, str]] = {name: {} for name in truth.people}
    for track in clip.tracks:
        for frame, name in names[track.id].items():
            by_person[name][frame] = track.id
    must = [(int(f), truth.people[p]) for f, p in np.argwhere(truth.visibility > SEEN)]
    seen_for = (truth.visibility > SEEN).sum(0)
    return Score(
        clip_id=clip.clip.id,
        frames=len(truth.visibility),
        faces=len(must),
        found=sum(frame in by_person[name] for frame, name in must),
        tracks=len(clip.tracks),
        right=sum(name_of.get(character_of.get(t, "")) == name for t, (name, _) in shown.items()),
        pure=sum(count == len(names[t]) for t, (_, count) in shown.items()),
        track_switches=sum(_switches(found, truth.shot_starts.tolist()) for found in by_person.values()),
        name_switches=sum(
            _switches({f: character_of.get(t, "") for f, t in found.items()}, [])
            for found in by_person.values()
        ),
        people=int((seen_for >= SHORTEST).sum()),
        characters=len({character_of[t.id] for t in clip.tracks if t.id in character_of}),
    )


def _switches(found: Mapping[int, str], shot_starts: Sequence[int]) -> int:
    """Changes from one frame to the next that the person is found in, those at the start of a shot apart."""
    frames = sorted(found)
    return sum(
        found[a] != found[b] and not any(a < start <= b for start in shot_starts)
        for a, b in itertools.pairwise(frames)
    )


def _matched(character_of: Mapping[str, str], names: Mapping[str, dict[int, str]]) -> dict[str, str]:
    characters = sorted(set(character_of.values()))
    people = sorted({name for seen in names.values() for name in seen.values()})
    votes = np.zeros((len(characters), len(people)))
    for track, character in character_of.items():
        for name, count in Counter(names.get(track, {}).values()).items():
            votes[characters.index(character), people.index(name)] += count
    rows, columns = linear_sum_assignment(-votes)
    return {characters[r]: people[c] for r, c in zip(rows, columns, strict=True)}


def _iou(box: F32, boxes: F32) -> F32:
    """f32[P] of f32[4] and f32[P,4]; 0 where a box is NaN."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    both = np.clip(high - low, 0, None).prod(-1)
    area = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return np.asarray(np.nan_to_num(both / (area - both)), np.float32)
