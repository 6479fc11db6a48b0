"""Calibration against rates counted pair by pair, and thresholds against what the corpus was made to need."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtr

from data_prep.config import LinkConfig
from data_prep.identity.calibration import Observed, as_json, chance_threshold, write
from data_prep.records import F32, FaceTrack
from tests.data_prep.identity.test_identities import DIM, make_track, unit

CONFIG = LinkConfig(threshold=0.4, min_norm=2.8, max_false_accept=0.02)


def track_of(track_id: str, faces: F32) -> FaceTrack:
    """A track whose every frame is embedded, with these faces."""
    made = make_track(track_id, np.eye(DIM, dtype=np.float32)[0], np.random.default_rng(0))
    count = len(faces)
    return replace(
        made,
        frames=np.arange(count, dtype=np.int32),
        embedded=np.ones(count, bool),
        norms=np.full(count, 5.0, np.float32),
        embeddings=faces,
    )


def at_angle(cosine: float) -> F32:
    return np.array([cosine, np.sqrt(1 - cosine**2), 0], np.float32)


def test_rates_are_those_of_the_pairs() -> None:
    """Early faces of a are (1,0,0), late ones (.7,.7,0); those of b are the late ones and (0,0,1)."""
    one, near, far = unit(np.array([1, 0, 0])), unit(np.array([1, 1, 0])), unit(np.array([0, 0, 1]))
    steady = track_of("a", np.stack([one, one, far, far, near, near]))
    turning = track_of("b", np.stack([near, near, far, far, far, near]))
    observed = Observed()
    observed.add([steady, turning], [("a", "b")], 2.8)
    measured = observed.measured("test", 0.5, 0.5, 0.6)
    assert (measured.num_positive, measured.num_negative) == (8, 4)
    assert measured.false_reject == pytest.approx(2 / 8)
    assert measured.false_accept == pytest.approx(2 / 4)
    assert observed.false_reject(0.9) == pytest.approx(6 / 8)
    rates = {at: (accept, reject) for at, accept, reject in measured.curve}
    assert rates[0.71] == (0.0, 6 / 8)
    assert rates[0.7] == (2 / 4, 2 / 8)


def test_faces_of_the_threshold_itself_pass() -> None:
    for cosine in (0.4, 0.401, 0.123, 0.5):
        observed = Observed()
        tracks = [track_of(name, np.stack([at_angle(c)] * 3)) for name, c in (("a", 1.0), ("b", cosine))]
        observed.add(tracks, [("a", "b")], 2.8)
        assert observed.false_accept(cosine) == 1.0
        assert observed.false_accept(cosine + 0.001) == 0.0


def seen_together(cosines: F32, own: float) -> Observed:
    """Pairs of people at these cosines, each the same face all through; and one of cosine ``own`` to itself."""
    observed = Observed()
    for cosine in cosines.tolist():
        pair = [track_of("a", np.stack([at_angle(1.0)] * 6)), track_of("b", np.stack([at_angle(cosine)] * 6))]
        observed.add(pair, [("a", "b")], 2.8)
    late = np.stack([at_angle(1.0)] * 2 + [at_angle(0.9)] * 2 + [at_angle(own)] * 2)
    for _ in cosines:
        observed.add([track_of("c", late)], [], 2.8)
    return observed


def test_people_who_look_alike_raise_the_threshold_until_few_enough_pass() -> None:
    cosines = np.linspace(-0.1, 0.499, 300).astype(np.float32)
    observed = seen_together(cosines, own=0.8)
    raised = observed.raised(0.4, CONFIG)
    assert (cosines >= raised).mean() <= 0.02 < (cosines >= raised - 0.003).mean()
    assert raised == pytest.approx(0.488, abs=0.003)
    assert observed.raised(0.4, replace(CONFIG, max_false_accept=1.0)) == 0.4
    assert observed.raised(0.49, CONFIG) == 0.49


def test_mirrors_do_not_raise_it_beyond_what_one_person_bears() -> None:
    mirrors = np.r_[np.full(280, 0.1), np.full(20, 0.95)].astype(np.float32)
    assert seen_together(mirrors, own=0.6).raised(0.4, CONFIG) == 0.4


def test_few_pairs_raise_nothing() -> None:
    assert seen_together(np.full(99, 0.45, np.float32), own=0.8).raised(0.4, CONFIG) == 0.4
    assert seen_together(np.full(100, 0.45, np.float32), own=0.8).raised(0.4, CONFIG) == 0.451


@pytest.mark.parametrize("share_known", [0.0, 0.2])
def test_the_chance_of_meeting_a_stranger_is_kept(share_known: float) -> None:
    """Strangers' cosines are normal by construction, also where a fifth of all pairs is one person."""
    rng = np.random.default_rng(0)
    dim, count = 100, 2000
    rows = rng.normal(size=(count, dim))
    rows[: int(count * share_known**0.5)] = rng.normal(size=dim) + 0.7 * rows[: int(count * share_known**0.5)]
    means = np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
    found = chance_threshold(means, [str(at) for at in range(count)], 0.2, 0.01)
    chance = count * (1 - ndtr(found * np.sqrt(dim)))
    assert 1e-4 < chance < 0.02
    assert chance_threshold(means, [str(at) for at in range(count)], 0.6, 0.01) == 0.6
    assert chance_threshold(means, [str(at) for at in range(count)], 0.2, 1.0) == 0.2
    assert chance_threshold(means, ["one"] * count, 0.2, 0.01) == 0.2


def test_the_file_says_nothing_where_nothing_was_measured(tmp_path: Path) -> None:
    write(tmp_path, Observed().measured("test", 0.4, 0.4, 0.4))
    stored = json.loads((tmp_path / "calibration.json").read_text())
    assert stored["false_accept"] is None
    assert stored["curve"] == []
    assert stored["num_positive"] == 0
    write(tmp_path, seen_together(np.full(5, 0.3, np.float32), 0.8).measured("test", 0.4, 0.4, 0.45))
    stored = json.loads((tmp_path / "calibration.json").read_text())
    assert stored["corpus_threshold"] == 0.45
    assert {"threshold": 0.3, "false_accept": 1.0, "false_reject": 0.0} in stored["curve"]
    assert "curve" not in as_json(Observed().measured("test", 0.4, 0.4, 0.4))
