"""What identity costs in generation: a sampling step with a cast beside one without, in one run."""

from __future__ import annotations

import statistics
import time

import pytest
import torch

from pipeline import model as models
from pipeline.config import FamilyConfig, GenerateConfig, IdentityConfig, ModelConfig, TinyConfig
from pipeline.generate import Scene, sample

pytestmark = pytest.mark.bench

WIDE = TinyConfig(
    num_layers=8, num_heads=8, head_dim=96, ffn_dim=3072
)  # the shape of a published one, narrower
IDENTITY = IdentityConfig(width=768, every=2)  # in every 2nd block, as ConsisID
CONFIG = GenerateConfig(num_frames=5, height_px=192, width_px=320, steps=2)
ROUNDS = 5


def test_a_step_with_identity_beside_one_without() -> None:
    videos = [torch.rand(2, 3, 192, 320) * 2 - 1]
    model = models.create(
        ModelConfig(family=FamilyConfig(tiny=WIDE), identity=IDENTITY), videos, seed=0
    ).eval()
    tokens = torch.randn(2, IDENTITY.tokens_per_character, IDENTITY.width)
    scenes = {
        "without identity": Scene("Anna talks to Ben"),
        "with identity": Scene("Anna talks to Ben", tokens),
    }
    spent: dict[str, list[float]] = {name: [] for name in scenes}
    for turn in range(
        ROUNDS + 1
    ):  # in turns, so that a machine that slows down slows both; the first is not counted
        for name, scene in scenes.items():
            began = time.process_time()
            sample(model, scene, CONFIG)
            if turn:
                spent[name].append((time.process_time() - began) / CONFIG.steps)
    pairs = zip(spent["with identity"], spent["without identity"], strict=True)
    ratio = statistics.median(a / b for a, b in pairs)
    size = sum(p.numel() for p in model.transformer.parameters()) / 1e6
    print(
        f"\n{size:.0f} M parameters, 2 characters, identity in every {IDENTITY.every}nd of {WIDE.num_layers} blocks"
    )
    for name, times in spent.items():
        print(f"  {name:18} {statistics.median(times):.3f} s of CPU a step")
    print(f"  ratio {ratio:.3f}")
    assert ratio <= 1.15
