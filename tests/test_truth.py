"""Preparation of the demo footage, judged against the truth of who is where, which preparation never sees."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from data_prep.analysis import store as analysis_store
from data_prep.analysis.windows import Framing
from data_prep.config import WindowConfig
from data_prep.footage import ClipTruth
from data_prep.footage.scenes import FPS
from data_prep.packing.catalogue import known_characters
from data_prep.records import F32, U8, AnalysedClip, FaceTrack
from data_prep.running.commit import WORK
from data_prep.selection.reference_figures import figures
from data_prep.shards import ReferenceNote, Sample, SampleNote, ShardSet

Name = str


@dataclass(frozen=True)
class Judged:
    """Prepared footage beside its truth. name_of: stage name by character id, matched one to one so that most
    tracks agree; seen: per track id the stage name that the truth has at its boxes, frame by frame."""

    clips: tuple[AnalysedClip, ...]
    truths: dict[str, ClipTruth]
    samples: tuple[Sample, ...]
    character_of: dict[str, str]
    seen: dict[str, dict[int, Name]]
    name_of: dict[str, Name]


@pytest.fixture(
    scope="module",
    params=["some_shards", pytest.param("shards", marks=pytest.mark.slow)],
    ids=["some", "whole"],
)
def judged(request: pytest.FixtureRequest, footage: Path) -> Judged:
    """Some of the clips, or the whole footage."""
    return judge(request.getfixturevalue(request.param), footage)


def judge(shards: Path, footage: Path) -> Judged:
    """Load what was prepared and who the truth says it is."""
    folders = sorted(p.parent for p in (shards / WORK).glob("*/analysis.json"))
    clips = tuple(analysis_store.load(folder, crops=False, windows=False) for folder in folders)
    truths = {c.clip.id: ClipTruth.load(footage / "truth" / f"{c.clip.id}.npz") for c in clips}
    seen = {t.id: _names(t, truths[c.clip.id]) for c in clips for t in c.tracks}
    character_of = known_characters(shards)
    packed = ShardSet.open(shards)
    samples = tuple(packed.read(index) for index in range(len(packed)))
    return Judged(clips, truths, samples, character_of, seen, _match(character_of, seen))


def _names(track: FaceTrack, truth: ClipTruth) -> dict[int, Name]:
    """By frame, who the truth has where the track's box is; frames without anybody there are left out."""
    names = {}
    for frame, box in zip(track.frames, track.boxes_px, strict=True):
        overlap = _iou(box, truth.boxes_px[frame]) * (truth.visibility[frame] > 0.2)
        if overlap.size and overlap.max() > 0.3:
            names[int(frame)] = truth.people[int(overlap.argmax())]
    return names


def _match(character_of: dict[str, str], seen: dict[str, dict[int, Name]]) -> dict[str, Name]:
    characters, names = (
        sorted(set(character_of.values())),
        sorted({n for s in seen.values() for n in s.values()}),
    )
    votes = np.zeros((len(characters), len(names)))
    for track, character in character_of.items():
        for name, count in Counter(seen[track].values()).items():
            votes[characters.index(character), names.index(name)] += count
    rows, columns = linear_sum_assignment(-votes)
    return {characters[r]: names[c] for r, c in zip(rows, columns, strict=True)}


def test_as_many_characters_as_people(judged: Judged) -> None:
    people = {name for truth in judged.truths.values() for name in truth.people}
    assert sorted(judged.name_of.values()) == sorted(people)
    assert len(set(judged.character_of.values())) == len(people)


def test_tracks_belong_to_who_they_show(judged: Judged) -> None:
    """Identity accuracy by track: its character's name is the name that most of its frames show."""
    right = [
        judged.name_of.get(judged.character_of[track]) == Counter(names.values()).most_common(1)[0][0]
        for track, names in judged.seen.items()
        if names
    ]
    pure = [max(Counter(names.values()).values()) / len(names) for names in judged.seen.values() if names]
    print(f"{len(right)} tracks, identity accuracy {np.mean(right):.3f}, purity {np.mean(pure):.4f}")
    assert all(judged.seen.values()), "a track where nobody is"
    assert np.mean(right) >= 0.98
    assert np.mean(pure) >= 0.98


def test_tracks_of_different_clips_are_one_person_where_the_truth_says_so(judged: Judged) -> None:
    """Of pairs of tracks of different clips: how many said to be one person are, and how many that are are said."""
    name_of = {t: Counter(names.values()).most_common(1)[0][0] for t, names in judged.seen.items() if names}
    clip_of = {track.id: clip.clip.id for clip in judged.clips for track in clip.tracks}
    said, true, both, total = 0, 0, 0, 0
    for one, other in itertools.combinations(sorted(name_of), 2):
        if clip_of[one] != clip_of[other]:
            linked = judged.character_of.get(one, one) == judged.character_of.get(other, other)
            same = name_of[one] == name_of[other]
            said, true, both, total = said + linked, true + same, both + (linked and same), total + 1
    print(
        f"{total} pairs of tracks of different clips: precision {both}/{said}, recall {both}/{true}, false accepts "
        f"{said - both} of {total - true}, false rejects {true - both} of {true}"
    )
    assert both >= 0.98 * max(said, true)


def test_who_can_be_seen_is_followed(judged: Judged) -> None:
    """Recall over all frames and faces of which at least 90 % are visible."""
    found = total = 0
    for clip in judged.clips:
        truth = judged.truths[clip.clip.id]
        followed = {(f, n) for t in clip.tracks for f, n in judged.seen[t.id].items()}
        for frame, person in np.argwhere(truth.visibility > 0.9):
            total += 1
            found += (int(frame), truth.people[person]) in followed
    print(f"{found} of {total} visible faces followed")
    assert found / total >= 0.98


def test_label_maps_cover_the_faces(judged: Judged) -> None:
    """IoU of the label map with the true face region, per frame and cast member of whom 90 % are visible."""
    ious: list[float] = []
    for sample in judged.samples:
        for slot, name, truth in _cast(sample.note, judged):
            person = truth.people.index(name)
            for at, frame in enumerate(sample.note.frames):
                if truth.visibility[frame, person] > 0.9:
                    region = _at_window_size(truth.labels[frame] == person + 1, sample.label_map.shape)
                    drawn = sample.label_map[at] == slot
                    ious.append(float((drawn & region).sum() / max((drawn | region).sum(), 1)))
    median, low = np.median(ious), np.quantile(ious, 0.1)
    print(
        f"label-map IoU over {len(ious)} faces: mean {np.mean(ious):.3f}, median {median:.3f}, p10 {low:.3f}"
    )
    assert np.mean(ious) >= 0.6


def test_no_face_pixel_says_somebody_else(judged: Judged) -> None:
    """Where the truth shows one person's face, the label map may not say another's."""
    wrong = total = 0
    for sample in judged.samples:
        cast = _cast(sample.note, judged)
        for at, frame in enumerate(sample.note.frames):
            for slot, name, truth in cast:
                region = _at_window_size(
                    truth.labels[frame] == truth.people.index(name) + 1, sample.label_map.shape
                )
                labels = sample.label_map[at][region]
                total += labels.size
                wrong += int(((labels != 0) & (labels != slot)).sum())
    print(f"{wrong} of {total} face pixels say somebody else")
    assert wrong / total < 0.01


def test_references_show_the_right_person_from_outside(judged: Judged) -> None:
    """No reference is from the frames being trained on, and each shows the person of its slot."""
    inside, wrong, count = 0, 0, 0
    for sample in judged.samples:
        note = sample.note
        for (_, name, truth), references in zip(_cast(note, judged), note.references, strict=True):
            assert len(references) >= 3
            for reference in references:
                count += 1
                inside += reference.clip_id == note.clip_id and _is_inside(note, reference, truth)
                wrong += judged.seen[reference.track_id].get(reference.frame) != name
                assert 0.4 <= reference.similarity <= 0.97
    print(f"{count} references, {inside} from training frames, {wrong} of another person")
    print(figures(sample.note for sample in judged.samples).sentence())
    assert inside == 0
    assert wrong == 0


def _is_inside(note: SampleNote, reference: ReferenceNote, truth: ClipTruth) -> bool:
    """Whether a face of the same clip is from the window, or from its shot and nearer than the guard gap."""
    shots = np.searchsorted(truth.shot_starts, [reference.frame, note.frames[0]], side="right")
    first_s, last_s = (frame / FPS for frame in (note.frames[0], note.frames[-1]))
    near = first_s - note.guard_gap_s < reference.frame / FPS < last_s + note.guard_gap_s
    return bool(near and shots[0] == shots[1])


def test_people_seen_once_are_not_trained_on(judged: Judged) -> None:
    """The six at the table show one picture each, so their windows have no references and are dropped."""
    assert all(not sample.note.clip_id.startswith(("table", "meadow-01")) for sample in judged.samples)
    names = {judged.name_of[m.character_id] for sample in judged.samples for m in sample.note.cast}
    there = {name for truth in judged.truths.values() for name in truth.people}
    assert names >= there & {"Martin", "Victor", "Oscar", "Bruno", "Toby", "Nora"}


def _cast(note: SampleNote, judged: Judged) -> list[tuple[int, Name, ClipTruth]]:
    """Slot, stage name and truth of every cast member."""
    truth = judged.truths[note.clip_id]
    return [(member.slot, judged.name_of[member.character_id], truth) for member in note.cast]


def _at_window_size(mask: U8, shape: tuple[int, ...]) -> U8:
    """bool[540,960] → bool[H,W] of the window: the same centred part, half of a pixel or more."""
    framing = Framing.of(mask.shape[1], mask.shape[0], WindowConfig(width_px=shape[2], height_px=shape[1]))
    part = mask[
        framing.top_px : framing.top_px + framing.crop_height_px,
        framing.left_px : framing.left_px + framing.crop_width_px,
    ]
    small = cv2.resize(part.astype(np.float32), (shape[2], shape[1]), interpolation=cv2.INTER_AREA)
    return np.asarray(small >= 0.5)


def _iou(box: F32, boxes: F32) -> F32:
    """f32[P] of f32[4] and f32[P,4]; 0 where a box is NaN."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    both = np.clip(high - low, 0, None).prod(-1)
    area = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return np.asarray(np.nan_to_num(both / (area - both)), np.float32)
