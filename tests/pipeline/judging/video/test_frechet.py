"""Fréchet distance and CLIPScore against other people's arithmetic on the same features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data_prep.records import InputError
from pipeline.judging.video.clip import clip_scores
from pipeline.judging.video.frechet import Frechet
from tests.plain_frechet import plain


def features(num: int, width: int, seed: int, shift: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(num, width)) @ np.random.default_rng(seed + 1).normal(size=(width, width))
    return (mixed + shift).astype(np.float32)


@pytest.mark.parametrize(("num_real", "num_made"), [(200, 150), (40, 33), (12, 10)])  # the last ones singular
def test_the_distance_is_the_formula(num_real: int, num_made: int) -> None:
    real, made = features(num_real, 24, 0), features(num_made, 24, 5, shift=0.7)
    found = Frechet("fid")
    for part in np.array_split(real, 5):
        found.add(torch.from_numpy(part), real=True)
    for row in made:
        found.add(torch.from_numpy(row[None]), real=False)
    expected = plain(real.astype(np.float64), made.astype(np.float64))
    assert found.distance() == pytest.approx(expected, rel=1e-6)
    assert found.is_thin == (num_made < 25)


def test_the_same_features_have_no_distance() -> None:
    found = Frechet("fid")
    for real in (True, False):
        found.add(torch.from_numpy(features(300, 8, 3)), real=real)
    assert abs(found.distance()) < 1e-4


def test_known_normals_in_closed_form() -> None:
    """Two lines of points with means 0 and 3, variances 1 and 4: 3² + (1 − 2)²."""
    points = torch.tensor([[-1.0], [0.0], [1.0]])
    found = Frechet("fvd")
    found.add(points, real=True)
    found.add(2 * points + 3, real=False)
    assert found.distance() == pytest.approx(10)


def test_too_few_are_refused_by_name() -> None:
    found = Frechet("fvd")
    found.add(torch.zeros(1, 3), real=True)
    with pytest.raises(InputError, match=r"fvd: 1 real and 0 generated features came; .* give more videos"):
        found.distance()


def test_clip_score_is_the_formula_frame_by_frame() -> None:
    random = np.random.default_rng(0)
    images, text = (random.normal(size=(n, 16)).astype(np.float32) for n in (40, 1))
    expected = []
    for image in images:
        cosine = float(np.dot(image, text[0]) / np.linalg.norm(image) / np.linalg.norm(text[0]))
        expected.append(100 * max(cosine, 0.0))
    found = clip_scores(torch.from_numpy(images), torch.from_numpy(text))
    assert found == pytest.approx(np.array(expected), abs=1e-4)
    assert (
        found == 0
    ).any()  # frames that fit the words worse than chance count as nothing, not against others
