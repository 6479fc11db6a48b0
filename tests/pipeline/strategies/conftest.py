"""A scene of two for the tiny model, Wans with and without a noise level per frame, and a drawing that notes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import model as models
from pipeline.config import IdentityConfig, ModelConfig
from pipeline.generate import Scene
from pipeline.model import Model
from tests.noted_drawing import Asked
from tests.small_wan import config_of, make_wan


@pytest.fixture
def scene() -> Scene:
    tokens = torch.randn(2, 3, 24, generator=torch.Generator().manual_seed(4))
    faces = np.random.default_rng(3).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    return Scene("Anna talks to Ben. Then she leaves.", tokens, faces=faces)


@pytest.fixture(scope="session")
def ti2v(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Model]:
    """A random Wan 2.2 TI2V in the published layout, whose codec groups frames 1 | 4 | 4 ..., made once."""
    folder = make_wan(tmp_path_factory.mktemp("ti2v") / "ti2v", "ti2v")
    return lambda: wan_of(folder)


@pytest.fixture(scope="session")
def i2v(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Model]:
    """A random Wan 2.1 image-to-video."""
    folder = make_wan(tmp_path_factory.mktemp("i2v") / "i2v", "i2v")
    return lambda: wan_of(folder)


def wan_of(folder: Path) -> Model:
    identity = IdentityConfig(tokens_per_character=3, width=24, encoder_layers=1, num_heads=2, max_cast=3)
    model = models.create(ModelConfig(family=config_of(folder), identity=identity), [], seed=1)
    for attention in model.identity.attentions:
        torch.nn.init.normal_(attention.to_out.weight, std=0.2)  # type: ignore[union-attr, arg-type]
    return model.eval()


@pytest.fixture
def asked() -> Asked:
    return Asked()
