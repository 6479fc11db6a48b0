"""Linking: judged on synthetic people with known answers, and against a slow plain implementation."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from data_prep.config import LinkConfig
from data_prep.identity.earlier import Earlier, settings
from data_prep.identity.identities import Linked, TrackFaces, by_track, cluster, co_visible, link
from data_prep.identity.naming import name_characters
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


def corpus(
    seed: int, num_people: int = 6, num_clips: int = 24, noise: float = 0.4
) -> tuple[list[AnalysedClip], dict[str, int]]:
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
            tracks.append(make_track(track_id, unit(people[person]), rng, noise=noise))
        clips.append(make_clip(f"clip{at:03d}", f"source{at % 5}", tracks))
    return clips, truth


def groups_of(clips: Sequence[AnalysedClip]) -> set[frozenset[str]]:
    return {frozenset(c.track_ids) for c in link(clips, LINK, "test").characters}


def faces(*vectors: F32) -> list[TrackFaces]:
    return [TrackFaces(f"t{at}", "s", v) for at, v in enumerate(vectors)]


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


def earlier(linked: Linked) -> Earlier:
    """What a run leaves for the next one."""
    return Earlier(
        ids=by_track(linked.linked),
        rows={track.id: row for row, track in enumerate(linked.tracks)},
        embeddings=np.stack([track.embedding for track in linked.tracks]),
        linked_with=settings(LINK, "test"),
    )


@pytest.mark.parametrize("seed", range(6))
def test_ids_stay_when_a_fifth_more_clips_are_added(seed: int) -> None:
    """Also where people are so alike (noise as long as the face) that linking anew would deal out otherwise."""
    clips, _ = corpus(seed, num_clips=30, noise=1.0)
    before = link(clips[5:], LINK, "test")
    after = link(clips, LINK, "test", earlier(before))
    kept = after.character_of()
    assert {track: kept[track] for track in before.character_of()} == before.character_of()
    assert len({c.id for c in after.characters}) == len(after.characters)
    again = link(clips, LINK, "test", earlier(after))
    assert again.characters == after.characters


def test_new_tracks_join_who_is_known_and_do_not_bridge_two() -> None:
    base = np.eye(DIM, dtype=np.float32)
    one, other, between = base[0], unit(0.3 * base[0] + base[1]), unit(base[0] + 0.9 * base[1])
    rng = np.random.default_rng(0)
    two = [
        make_clip("a", "s", [make_track("a-0", one, rng, noise=0.01)]),
        make_clip("b", "s", [make_track("b-0", other, rng, noise=0.01)]),
    ]
    before = link(two, LINK, "test")
    third = make_clip("c", "s", [make_track("c-0", between, rng, noise=0.01)])
    after = link([*two, third], LINK, "test", earlier(before))
    assert len(before.characters) == 2
    names = after.character_of()
    assert names.pop("c-0") in names.values()
    assert names == before.character_of()
    (pair,) = after.alike
    assert pair.why == "earlier run"
    assert {pair.one, pair.other} == set(names.values())
    anew = link([*two, third], replace(LINK, keep_characters=False), "test", earlier(before))
    assert len(anew.characters) == 1


def test_who_is_kept_has_the_id_whatever_others_vote() -> None:
    groups = [("a", "b", "c"), ("d",), ("e",)]
    voted = {"a": "cone", "b": "ctwo", "c": "ctwo", "d": "ctwo"}
    named = name_characters(groups, voted, kept={"a": "cone", "d": "ctwo"})
    assert {c.id: c.track_ids for c in named if len(c.id) == 4} == {"cone": groups[0], "ctwo": groups[1]}
    assert {c.id for c in name_characters(groups, voted)} > {"ctwo"}


def test_other_settings_link_everything_anew_and_keep_ids_by_vote() -> None:
    clips, _ = corpus(3)
    before = link(clips, LINK, "test")
    merged = Earlier(
        dict.fromkeys(by_track(before.linked), "cold"), *list(vars(earlier(before)).values())[1:]
    )
    assert len(link(clips, LINK, "test", merged).characters) < len(before.characters)
    stricter = replace(LINK, threshold=0.45)
    after = link(clips, stricter, "test", merged)
    assert {frozenset(c.track_ids) for c in after.characters} == {
        frozenset(c.track_ids) for c in before.characters
    }
    assert "cold" in {c.id for c in after.characters}


def test_a_track_that_shows_somebody_else_inherits_nothing() -> None:
    """A clip's file was replaced: its tracks have the ids of those before, and another face."""
    rng = np.random.default_rng(5)
    one, other = np.eye(DIM, dtype=np.float32)[:2]
    before = link([make_clip("a", "s", [make_track("a-0", one, rng)])], LINK, "test")
    replaced = link([make_clip("a", "s", [make_track("a-0", other, rng)])], LINK, "test", earlier(before))
    assert replaced.character_of()["a-0"] != before.character_of()["a-0"]


def test_who_looks_alike_is_told_with_what_keeps_them_apart() -> None:
    rng = np.random.default_rng(0)
    twin = unit(rng.normal(size=DIM))
    both = [make_track("a-0", twin, rng, noise=0.1), make_track("a-1", twin, rng, noise=0.1)]
    (alike,) = link([make_clip("a", "s", both)], LINK, "test").alike
    assert (alike.why, alike.cosine > 0.9) == ("seen together", True)


def test_a_known_id_goes_to_the_larger_claim_only() -> None:
    rng = np.random.default_rng(5)
    one, other = np.eye(DIM, dtype=np.float32)[:2]
    clips = [
        make_clip("a", "s", [make_track("a-0", one, rng)]),
        make_clip("b", "s", [make_track("b-0", one, rng)]),
        make_clip("c", "s", [make_track("c-0", other, rng)]),
    ]
    named = link(clips, LINK, "test", Earlier(dict.fromkeys(("a-0", "b-0", "c-0"), "cold")))
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
