"""The tracker on made-up people whose every detection is known: nobody mixed, nobody lost without need."""

from collections import defaultdict

import numpy as np
import pytest

from data_prep.config import TrackConfig
from data_prep.tracks import FaceTracker, iou

DIM, MIN_NORM = 64, 2.8
CONFIG = TrackConfig(min_cosine=0.4)


def embedding(person: int, rng: np.random.Generator) -> np.ndarray:
    """Unit f32[64]: cosine about .8 to the same person's, 0 to others' (their true vectors are orthogonal)."""
    vector = np.zeros(DIM) + rng.normal(0, 0.75 / np.sqrt(DIM), DIM)
    vector[person] += 1
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def box(x, y, size=60):
    return np.array([x - size / 2, y - size / 2, x + size / 2, y + size / 2], np.float32)


def follow(people_by_frame, embed_every=4, detect_every=1, seed=0, min_norm=MIN_NORM, config=CONFIG):
    """people_by_frame: per frame {person: (box, norm)}; → {track: [(frame, person)]}, number of embeddings."""
    rng = np.random.default_rng(seed)
    tracker = FaceTracker(config, embed_every, min_norm)
    tracks, num_embedded = defaultdict(list), 0
    for frame, people in enumerate(people_by_frame):
        if people == "cut":
            tracker.cut()
            continue
        if frame % detect_every:
            continue
        persons = rng.permutation(list(people)).tolist()
        boxes = np.array([people[p][0] + rng.normal(0, 1, 4) for p in persons], np.float32).reshape(-1, 4)
        wanted = tracker.wanted(frame, boxes)
        num_embedded += int(wanted.sum())
        norms = np.array([people[p][1] for p in persons], np.float32) * wanted
        unit = np.array([embedding(p, rng) for p in persons], np.float32).reshape(-1, DIM) * wanted[:, None]
        numbers = tracker.step(frame, boxes, unit, norms)
        assert len(set(numbers.tolist())) == len(numbers) and (numbers >= 0).all()
        for old, new in tracker.adopted.items():
            assert old not in numbers and max(tracks[new])[0] < min(tracks[old])[0]
            tracks[new] += tracks.pop(old)
        for number, person in zip(numbers.tolist(), persons, strict=True):
            tracks[number].append((frame, person))
    return dict(tracks), num_embedded


def persons_of(tracks):
    return sorted(sorted({p for _, p in seen}) for seen in tracks.values())


def crossing(hidden_frames):
    """Person 1 walks behind person 0 and is not seen for ``hidden_frames``; covered (low norm) before and after."""
    half = hidden_frames / 2
    frames = []
    for t in range(-60, 60):
        people = {0: (box(300 + 2 * t, 200, 80), 4.0)}
        if abs(t) > half:
            people[1] = (box(300 - 3 * t, 200, 60), 1.5 if abs(t) < half + 5 else 4.0)
        frames.append(people)
    return frames


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("hidden_frames", [6, 12, 14])
def test_people_who_cross_keep_their_tracks(seed, hidden_frames):
    tracks, _ = follow(crossing(hidden_frames), seed=seed)
    long = {n: seen for n, seen in tracks.items() if len(seen) >= 5}
    assert persons_of(long) == [[0], [1]]
    seen_of_1 = next(seen for seen in long.values() if seen[0][1] == 1)
    assert seen_of_1[0][0] == 0 and seen_of_1[-1][0] == 119  # the same track before and after the occlusion


@pytest.mark.parametrize("seed", range(5))
def test_who_is_hidden_for_long_is_known_again(seed):
    tracks, _ = follow(crossing(50), seed=seed)
    long = {n: seen for n, seen in tracks.items() if len(seen) >= 5}
    assert persons_of(long) == [[0], [1]]


@pytest.mark.parametrize("seed", range(5))
def test_a_track_that_needs_more_likeness_than_there_is_begins_anew(seed):
    tracks, _ = follow(crossing(50), seed=seed, config=TrackConfig(min_cosine=0.4, reentry_margin=2))
    assert all(len({p for _, p in seen}) == 1 for seen in tracks.values())
    assert sum(len(seen) >= 5 for seen in tracks.values()) == 3


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("detect_every", [1, 3])
def test_people_who_leave_and_come_back_elsewhere_keep_their_tracks(seed, detect_every):
    """Both go out on the right; two seconds later they come in on the left, in the other order, with a third."""
    frames = [{0: (box(500 + 8 * t, 200), 4.0), 1: (box(300 + 8 * t, 300), 4.0)} for t in range(60)]
    frames += [{}] * 60
    frames += [
        {1: (box(8 * t, 200), 4.0), 0: (box(8 * t, 400), 4.0), 2: (box(8 * t, 600), 4.0)} for t in range(60)
    ]
    tracks, _ = follow(frames, seed=seed, detect_every=detect_every)
    assert persons_of(tracks) == [[0], [1], [2]]


def test_it_asks_for_every_frame_where_faces_overlap_or_one_was_lost():
    tracker = FaceTracker(CONFIG, 4, MIN_NORM)
    apart, close = np.stack([box(100, 100), box(300, 100)]), np.stack([box(100, 100), box(150, 100)])
    two, four = np.eye(2, DIM, dtype=np.float32), np.full(2, 4, np.float32)
    assert not tracker.is_unsure
    for frame, (boxes, unsure) in enumerate(
        [(apart, False), (close, True), (apart, False), (apart[:1], True)]
    ):
        tracker.step(frame, boxes, two[: len(boxes)], four[: len(boxes)])
        assert tracker.is_unsure == unsure
    np.testing.assert_allclose(tracker.boxes_px(4), apart[:1], atol=20)  # only who is there
    for frame in range(4, 4 + CONFIG.max_gap_frames):
        tracker.step(frame, apart[:1], two[:1], four[:1])
    assert not tracker.is_unsure  # gone, no longer merely hidden


@pytest.mark.parametrize("seed", range(5))
def test_a_stranger_in_the_same_place_is_another_track(seed):
    """As when a cut between two close-ups was missed."""
    frames = [{0: (box(200, 200), 4.0)}] * 20 + [{1: (box(202, 200), 4.0)}] * 20
    tracks, _ = follow(frames, embed_every=1, seed=seed)
    assert persons_of(tracks) == [[0], [1]]


def test_a_crowd_of_random_walkers():
    rng = np.random.default_rng(3)
    places = rng.uniform(100, 900, (6, 2))
    velocity = rng.normal(0, 4, (6, 2))
    frames = []
    for _ in range(200):
        places += velocity
        velocity = np.where((places < 60) | (places > 940), -velocity, velocity)
        boxes = {p: box(*places[p]) for p in range(6)}
        overlap = {
            p: max(iou(boxes[p][None], boxes[q][None])[0, 0] for q in range(6) if q != p) for p in range(6)
        }
        frames.append({p: (boxes[p], 1.5 if overlap[p] > 0.2 else 4.0) for p in range(6) if overlap[p] < 0.5})
    tracks, _ = follow(frames)
    correct = sum(max(np.bincount([p for _, p in seen])) for seen in tracks.values())
    assert correct / sum(map(len, tracks.values())) > 0.995
    assert sum(len(seen) >= 5 for seen in tracks.values()) <= 9


@pytest.mark.parametrize("detect_every", [1, 2, 4])
def test_one_walker_is_one_track_and_is_rarely_embedded(detect_every):
    frames = [{0: (box(100 + 5 * t, 200), 4.0)} for t in range(80)]
    tracks, num_embedded = follow(frames, embed_every=8, detect_every=detect_every)
    assert len(tracks) == 1 and len(tracks[0]) == 80 // detect_every
    assert num_embedded <= 12


def test_a_pack_without_a_least_norm_still_follows_faces_that_are_not_embedded():
    frames = [{0: (box(100 + 5 * t, 200), 20.0), 1: (box(100 + 5 * t, 400), 20.0)} for t in range(40)]
    tracks, num_embedded = follow(frames, embed_every=8, min_norm=0.0)
    assert persons_of(tracks) == [[0], [1]]
    assert num_embedded <= 12


def test_overlapping_faces_are_always_embedded():
    tracker = FaceTracker(CONFIG, 4, MIN_NORM)
    apart, close = np.stack([box(100, 100), box(300, 100)]), np.stack([box(100, 100), box(150, 100)])
    for frame, (boxes, expected) in enumerate([(apart, True), (apart, False), (close, True), (close, True)]):
        wanted = tracker.wanted(frame, boxes)
        assert wanted.tolist() == [expected] * 2
        unit = np.eye(2, DIM, dtype=np.float32)
        tracker.step(frame, boxes, unit * wanted[:, None], wanted * np.float32(4.0))
        if frame == 1:  # the faces jump together; both are new places and must be looked at
            tracker.cut()


def test_a_face_that_comes_back_adopts_one_nameless_track_at_most():
    tracker = FaceTracker(CONFIG, 4, MIN_NORM)
    anna = np.eye(1, DIM, dtype=np.float32)
    nobody = np.zeros((2, DIM), np.float32)
    tracker.step(0, box(100, 100)[None], anna, np.array([4.0], np.float32))
    covered = np.stack([box(300, 100), box(330, 100)])  # two at once, both too covered to be known
    tracker.step(5, covered, nobody, np.zeros(2, np.float32))
    found = tracker.step(6, box(312, 100)[None], anna, np.array([4.0], np.float32))
    assert found.tolist() == [0]
    assert tracker.adopted == {1: 0}


def half_out(num_known, looks_like):
    """Anna is lost; a face half out from behind something, its embedding like nobody's yet long enough, comes to
    look like ``looks_like`` though too covered to be sure; then Anna is known where it was. The tracks adopted."""
    tracker = FaceTracker(CONFIG, 4, MIN_NORM)
    anna, ben, nobody = np.eye(3, DIM, dtype=np.float32)
    at = box(300, 100)[None]
    tracker.step(0, box(100, 100)[None], anna[None], np.array([4.0], np.float32))
    for frame in range(5, 5 + num_known):
        tracker.step(frame, at, nobody[None], np.array([3.0], np.float32))
    tracker.step(8, at, {"anna": anna, "ben": ben}[looks_like][None], np.array([2.7], np.float32))
    assert tracker.step(9, at, anna[None], np.array([4.0], np.float32)).tolist() == [0]
    return tracker.adopted


def test_half_a_face_that_turns_out_to_be_somebody_is_no_track_of_its_own():
    assert half_out(1, "anna") == {1: 0}
    assert half_out(1, "ben") == {}  # no doubt is resolved by place alone
    assert half_out(2, "anna") == {}  # nor against two embeddings


def test_a_track_that_opens_without_an_embedding_asks_for_one_at_once():
    tracker = FaceTracker(CONFIG, 100, MIN_NORM)
    face = box(100, 100)[None]
    tracker.step(0, face, np.zeros((1, DIM), np.float32), np.zeros(1, np.float32))
    assert tracker.wanted(1, face).tolist() == [True]


def test_nobody_is_followed_across_a_cut():
    frames = [{0: (box(200, 200), 4.0)}] * 10 + ["cut"] + [{0: (box(200, 200), 4.0)}] * 10
    tracks, _ = follow(frames)
    assert sorted(map(len, tracks.values())) == [10, 10]


def test_frames_without_faces():
    tracks, _ = follow([{}, {0: (box(5, 5), 4.0)}, {}, {0: (box(5, 5), 4.0)}])
    assert sorted(len(seen) for seen in tracks.values()) == [2]


def test_iou():
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 5, 5]], np.float32)
    np.testing.assert_allclose(iou(boxes, boxes), [[1, 1 / 7, 0], [1 / 7, 1, 0], [0, 0, 0]], atol=1e-6)
