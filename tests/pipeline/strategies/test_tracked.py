"""Attention that stays with a face: against plain attention, at the layer and in whole drawings; faces found on
footage whose truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep.decode import iter_frames
from data_prep.footage import ClipTruth
from data_prep.records import U8, InputError
from pipeline.config import GenerateConfig, StrategyConfig
from pipeline.generate import Scene
from pipeline.model import Model
from pipeline.strategies.drawing import draw
from pipeline.strategies.tracked import held_together, regions_of, token_regions

NewModel = Callable[..., Model]
CONFIG = GenerateConfig(
    num_frames=3, height_px=32, width_px=48, steps=2, strategy=StrategyConfig("tracked+bank")
)
REGION = torch.tensor([1, 1, 0, 2, 2, 0, 1, 2])


@pytest.fixture
def layout() -> U8:
    """Two faces, of which the first moves to the right by a cell a frame."""
    made = np.zeros((3, 32, 48), np.uint8)
    for t in range(3):
        made[t, 8:24, 8 * t : 8 * t + 16] = 1
        made[t, 8:24, 40:48] = 2
    return made


def slow_attention(attention: torch.nn.Module, hidden: torch.Tensor, bias: float) -> torch.Tensor:
    """The layer's answer for one sample, score by score."""
    a: object = attention
    q, k = (getattr(a, f"norm_{n}")(getattr(a, f"to_{n}")(hidden))[0] for n in "qk")
    v = a.to_v(hidden)[0]  # type: ignore[attr-defined]
    heads, rows = a.heads, []  # type: ignore[attr-defined]
    width = q.shape[1] // heads
    for i in range(len(q)):
        parts = []
        for h in range(heads):
            some = slice(h * width, (h + 1) * width)
            scores = torch.tensor([float(q[i, some] @ k[j, some]) / width**0.5 for j in range(len(k))])
            for j in range(len(k)):
                if REGION[i] > 0 and REGION[j] != REGION[i]:
                    scores[j] -= bias
            parts.append(scores.softmax(0) @ v[:, some])
        rows.append(torch.cat(parts))
    out: torch.Tensor = a.to_out[0](torch.stack(rows))[None]  # type: ignore[attr-defined]
    return out


@pytest.mark.parametrize("bias", [0.0, 1.5, math.inf])
@torch.no_grad()
def test_scores_outside_a_region_are_less_by_the_bias(bias: float, new_model: NewModel) -> None:
    attention = new_model().family.self_attentions[0]
    hidden = torch.randn(1, 8, 48, generator=torch.Generator().manual_seed(1))
    with held_together([attention], REGION, bias):
        found = attention(hidden, None, None, None)
    torch.testing.assert_close(found, slow_attention(attention, hidden, bias), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_under_a_hard_mask_one_face_does_not_know_of_the_other(new_model: NewModel) -> None:
    attention = new_model().family.self_attentions[0]
    hidden = torch.randn(1, 8, 48, generator=torch.Generator().manual_seed(1))
    changed = hidden.clone()
    changed[:, REGION != 1] += 3.0
    with held_together([attention], REGION, math.inf):
        before, after = attention(hidden, None, None, None), attention(changed, None, None, None)
    assert torch.equal(before[:, REGION == 1], after[:, REGION == 1])
    assert not torch.equal(before[:, REGION != 1], after[:, REGION != 1])
    plain = attention(changed, None, None, None)
    assert not torch.equal(plain[:, REGION == 1], after[:, REGION == 1])  # and the mask is gone


def test_without_bias_the_video_is_the_banks_bit_for_bit(
    new_model: NewModel, scene: Scene, layout: U8
) -> None:
    model, shown = new_model(), replace(scene, layout=layout)
    none = replace(CONFIG, strategy=replace(CONFIG.strategy, bias=0.0))
    bank = replace(CONFIG, strategy=StrategyConfig("bank"))
    assert np.array_equal(draw(model, shown, none).frames, draw(model, shown, bank).frames)
    soft, hard = (
        draw(model, shown, replace(CONFIG, strategy=replace(CONFIG.strategy, bias=bias)))
        for bias in (2.0, math.inf)
    )
    assert len({d.frames.tobytes() for d in (soft, hard, draw(model, shown, bank))}) == 3
    assert np.array_equal(draw(model, shown, CONFIG).frames, soft.frames) and soft.num_steps == CONFIG.steps


def test_a_tokens_region_is_what_covers_most_of_it(new_model: NewModel, layout: U8) -> None:
    found = token_regions(layout, new_model().family.grid).view(3, 4, 6)
    expected = torch.from_numpy(layout[:, ::8, ::8].astype(np.int64))
    assert torch.equal(found, expected)


def test_a_wan_groups_frames(ti2v: Callable[[], Model], scene: Scene) -> None:
    layout = np.zeros((32, 64), np.uint8)
    layout[:, :32] = 1
    shown = replace(scene, layout=layout, tokens=scene.tokens)
    config = GenerateConfig(5, 32, 64, steps=1, strategy=StrategyConfig("tracked+bank", bias=math.inf))
    model = ti2v()
    plain = draw(model, shown, replace(config, strategy=StrategyConfig("bank")))
    assert not np.array_equal(draw(model, shown, config).frames, plain.frames)


def test_faces_are_found_and_followed_where_they_are(footage: Path) -> None:
    truth = ClipTruth.load(footage / "truth" / "cafe-01.npz")
    clip = np.concatenate([c.frames[::6] for c in iter_frames(footage / "clips" / "cafe-01.mp4")])[:6]
    labels = truth.labels[::6][:6]
    regions = regions_of(clip, "embedded")
    people = [k for k in np.unique(labels) if k and all((labels[t] == k).sum() > 500 for t in range(6))]
    assert people
    for k in people:
        numbers = {int(np.bincount(regions[t][labels[t] == k]).argmax()) for t in range(6)}
        inside = np.mean([(regions[t][labels[t] == k] > 0).mean() for t in range(6)])
        assert len(numbers) == 1 and numbers != {0} and inside > 0.8


def test_a_first_look_without_faces_says_what_to_do(
    face_home: Path, new_model: NewModel, scene: Scene
) -> None:
    with pytest.raises(InputError, match="first look shows no face; give --layout"):
        draw(new_model(), scene, CONFIG)
