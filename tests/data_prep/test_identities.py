"""Linking: judged on synthetic people with known answers, and against a slow plain implementation."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest

from data_prep.config import LinkConfig
from data_prep.identities import TrackFaces, calibrate, cluster, co_visible, link
from data_prep.records import F32, AnalysedClip, Clip, FaceTrack

DIM = 64
LINK = LinkConfig(threshold=0.4, min_norm=2.8)


def unit(vector: np.ndarray) -> F32:
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def make_track(
    track_id: str,
    person: F32,
    rng: np.random.Generator,
    first: int = 0,
    noise: float = 0.4,
    norm: float = 5.0,
) -> FaceTrack:
    """A track of 24 frames, every fourth embedded, of a person with noise of that length added."""
    frames = np.arange(first, first + 24, dtype=np.int32)
    embedded = frames % 4 == 0
    noises = rng.normal(size=(24, DIM)) * noise / np.sqrt(DIM)
    vectors = np.stack([unit(person + n) for n in noises]) * embedded[:, None]
    return FaceTrack(
        id=track_id,
        clip_id=track_id.rsplit("-", 1)[0],
        shot=0,
        frames=frames,
        boxes_px=np.tile(np.array([10, 10, 60, 60], np.float32), (24, 1)),
        landmarks_px=np.zeros((24, 5, 2), np.float32),
        ovals_px=np.zeros((24, 36, 2), np.float32),
        scores=np.ones(24, np.float32),
        norms=np.asarray(embedded * norm, np.float32),
        sharpness=np.asarray(embedded * 100.0, np.float32),
        yaw_deg=np.zeros(24, np.float32),
        pitch_deg=np.zeros(24, np.float32),
        roll_deg=np.zeros(24, np.float32),
        embedded=embedded,
        embeddings=np.asarray(vectors, np.float32),
        crop_frames=np.zeros(0, np.int32),
        crops=np.zeros((0, 112, 112, 3), np.uint8),
    )


def make_clip(clip_id: str, source_id: str, tracks: Sequence[FaceTrack]) -> AnalysedClip:
    clip = Clip(clip_id, source_id, f"{clip_id}.mp4", 0.0, 10.0, 24.0, 640, 360)
    return AnalysedClip(clip, 640, 360, np.arange(100) / 24, (), tuple(tracks), ())


def corpus(seed: int, num_people: int = 6, num_clips: int = 24) -> tuple[list[AnalysedClip], dict[str, int]]:
    """Clips of one to three people each, all in view at once, and who each track is."""
    rng = np.random.default_rng(seed)
    people = np.linalg.qr(rng.normal(size=(DIM, num_people)))[0].T
    truth: dict[str, int] = {}
    clips = []
    for at in range(num_clips):
        here = rng.choice(num_people, size=rng.integers(1, 4), replace=False)
        tracks = []
        for k, person in enumerate(here):
            track_id = f"clip{at:03d}-{k}"
            truth[track_id] = int(person)
            tracks.append(make_track(track_id, unit(people[person]), rng))
        clips.append(make_clip(f"clip{at:03d}", f"source{at % 5}", tracks))
    return clips, truth


def groups_of(clips: Sequence[AnalysedClip]) -> set[frozenset[str]]:
    return {frozenset(c.track_ids) for c in link(clips, LINK, "test").characters}


def faces(*vectors: F32) -> list[TrackFaces]:
    return [TrackFaces(f"t{at}", "s", v, v[None], v[None]) for at, v in enumerate(vectors)]


@pytest.mark.parametrize("seed", range(5))
def test_every_person_becomes_one_character(seed: int) -> None:
    clips, truth = corpus(seed)
    people: dict[int, set[str]] = {}
    for track_id, person in truth.items():
        people.setdefault(person, set()).add(track_id)
    assert groups_of(clips) == {frozenset(tracks) for tracks in people.values()}


def test_the_order_of_clips_and_tracks_changes_nothing() -> None:
    clips, _ = corpus(7)
    expected = link(clips, LINK, "test")
    shuffler = random.Random(1)
    for _ in range(4):
        shuffled = shuffler.sample(clips, len(clips))
        again = link(shuffled, LINK, "test")
        assert again.characters == expected.characters
        assert again.must_not == expected.must_not
        assert again.calibration == expected.calibration


def test_twins_seen_together_stay_two_and_split_the_rest() -> None:
    """The same face twice in one frame, and both again in another clip: nobody may hold both of a clip."""
    rng = np.random.default_rng(0)
    twin = unit(rng.normal(size=DIM))
    one = make_clip(
        "a", "s1", [make_track("a-0", twin, rng, noise=0.1), make_track("a-1", twin, rng, noise=0.1)]
    )
    two = make_clip(
        "b", "s2", [make_track("b-0", twin, rng, noise=0.1), make_track("b-1", twin, rng, noise=0.1)]
    )
    characters = link([one, two], LINK, "test").characters
    assert len(characters) == 2
    assert all(len({track[0] for track in c.track_ids}) == 2 for c in characters)


def test_cannot_link_is_respected_through_third_tracks() -> None:
    """b and c were seen together; a is nearest to both, and may join one only."""
    base = np.eye(DIM, dtype=np.float32)
    a, b, c = base[0], unit(base[0] + 0.3 * base[1]), unit(base[0] + 0.4 * base[2])
    assert cluster(faces(a, b, c), [("t1", "t2")], 0.4) == [("t0", "t1"), ("t2",)]


def test_a_chain_of_blurred_tracks_does_not_join_two_people() -> None:
    """Each step of the chain is similar enough, its ends are not; single linkage would merge all."""
    angles = np.linspace(0, np.pi / 2, 7)
    chain = [unit(np.cos(t) * np.eye(DIM)[0] + np.sin(t) * np.eye(DIM)[1]) for t in angles]
    found = cluster(faces(*chain), [], 0.8)
    assert len(found) > 1
    assert not any({"t0", "t6"} <= set(group) for group in found)


def test_tracks_of_one_shot_that_do_not_overlap_may_be_one_person() -> None:
    rng = np.random.default_rng(3)
    person = unit(rng.normal(size=DIM))
    tracks = [make_track("a-0", person, rng, first=0), make_track("a-1", person, rng, first=40)]
    assert co_visible(tracks) == []
    assert co_visible([tracks[0], make_track("a-2", person, rng, first=20)]) == [("a-0", "a-2")]
    assert groups_of([make_clip("a", "s", tracks)]) == {frozenset({"a-0", "a-1"})}


@pytest.mark.parametrize("seed", range(8))
def test_against_a_plain_slow_average_linkage(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = [unit(rng.normal(size=6)) for _ in range(14)]
    tracks = faces(*vectors)
    ids = sorted(track.id for track in tracks)
    tracks = sorted(tracks, key=lambda track: track.id)
    must_not = [(a, b) for a, b in itertools.combinations(ids, 2) if rng.random() < 0.1]
    expected = slow_linkage({t.id: t.embedding for t in tracks}, must_not, 0.3)
    assert {frozenset(g) for g in cluster(tracks, must_not, 0.3)} == expected


def slow_linkage(
    vectors: dict[str, F32], must_not: Sequence[tuple[str, str]], threshold: float
) -> set[frozenset[str]]:
    """All pairs of all clusters at every step, averages from the definition."""
    groups = [frozenset({name}) for name in vectors]
    while True:
        options = []
        for one, other in itertools.combinations(groups, 2):
            pairs = list(itertools.product(one, other))
            if any((a, b) in must_not or (b, a) in must_not for a, b in pairs):
                continue
            average = sum(float(vectors[a].astype(float) @ vectors[b].astype(float)) for a, b in pairs) / len(
                pairs
            )
            options.append((average, one, other))
        best = max(options, key=lambda option: option[0], default=(0.0, frozenset(), frozenset()))
        if best[0] < threshold:
            return set(groups)
        groups = [g for g in groups if g not in best[1:]] + [best[1] | best[2]]


def test_ids_stay_when_clips_are_added() -> None:
    clips, _ = corpus(11)
    before = link(clips[4:], LINK, "test")
    after = link(clips, LINK, "test", known=before.character_of())
    kept = after.character_of()
    assert all(kept[track] == name for track, name in before.character_of().items())
    assert len({c.id for c in after.characters}) == len(after.characters)


def test_a_known_id_goes_to_the_larger_claim_only() -> None:
    rng = np.random.default_rng(5)
    one, other = np.eye(DIM, dtype=np.float32)[:2]
    clips = [
        make_clip("a", "s", [make_track("a-0", one, rng)]),
        make_clip("b", "s", [make_track("b-0", one, rng)]),
        make_clip("c", "s", [make_track("c-0", other, rng)]),
    ]
    named = link(clips, LINK, "test", known=dict.fromkeys(("a-0", "b-0", "c-0"), "cold"))
    names = named.character_of()
    assert names["a-0"] == names["b-0"] == "cold"
    assert names["c-0"] != "cold"


def test_a_track_of_covered_faces_is_dropped_with_its_number() -> None:
    rng = np.random.default_rng(5)
    covered = make_track("a-0", np.eye(DIM, dtype=np.float32)[0], rng, norm=1.5)
    linked = link([make_clip("a", "s", [covered])], LINK, "test")
    assert linked.characters == ()
    decision = linked.decisions[0]
    assert (decision.item, decision.rule, decision.value, decision.limit) == (
        "a-0",
        "no_usable_face",
        "1.50",
        ">= 2.8",
    )
    assert np.isnan(linked.calibration.false_accept)


def test_calibration_counts_what_the_threshold_gets_wrong() -> None:
    one, near, far = unit(np.array([1, 0, 0])), unit(np.array([1, 1, 0])), unit(np.array([0, 0, 1]))
    steady = TrackFaces("a", "s", one, np.stack([one, one]), np.stack([near, near]))
    turning = TrackFaces("b", "s", one, np.stack([near, near]), np.stack([far, near]))
    measured = calibrate([steady, turning], [("a", "b")], "test", 0.5)
    assert (measured.num_positive, measured.num_negative) == (8, 4)
    assert measured.false_reject == pytest.approx(2 / 8)
    assert measured.false_accept == pytest.approx(2 / 4)
