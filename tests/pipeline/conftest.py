"""A model of a few thousand parameters and batches for it, which the tests of the model side share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pipeline import model as models
from pipeline.batch import Batch
from pipeline.config import FamilyConfig, IdentityConfig, ModelConfig, TinyConfig
from pipeline.model import Model

FRAMES, HEIGHT, WIDTH, DIM = 3, 32, 48, 32


@pytest.fixture(scope="session")
def model_config() -> ModelConfig:
    tiny = TinyConfig(
        patch_px=8,
        latent_channels=24,
        num_layers=2,
        num_heads=2,
        head_dim=24,
        ffn_dim=64,
        text_tokens=8,
        text_dim=16,
    )
    identity = IdentityConfig(
        embedding_dim=DIM, tokens_per_character=3, width=24, encoder_layers=1, num_heads=2, max_cast=4
    )
    return ModelConfig(family=FamilyConfig(tiny=tiny), identity=identity)


@pytest.fixture(scope="session")
def videos() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(3 * FRAMES, 3, HEIGHT // 8, WIDTH // 8, generator=generator) * 2 - 1
    return list(torch.nn.functional.interpolate(coarse, scale_factor=8, mode="bilinear").split(FRAMES))


@pytest.fixture
def new_model(model_config: ModelConfig, videos: list[torch.Tensor]) -> Callable[..., Model]:
    """A model whose identity already matters, as after training: its zero projections are filled on request."""

    def make(trained: bool = True, config: ModelConfig = model_config) -> Model:
        model = models.create(config, videos, seed=1)
        if trained:
            generator = torch.Generator().manual_seed(9)
            for attention in model.identity.attentions:
                attention.to_out.weight.data.normal_(0, 0.2, generator=generator)
                attention.nobody.data.normal_(0, 1, generator=generator)
        return model

    return make


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """B samples with two characters each, of whom the second is missing in the last sample."""

    def make(num_samples: int = 2, num_slots: int = 2, seed: int = 0) -> Batch:
        generator = torch.Generator().manual_seed(seed)

        def unit(*shape: int) -> torch.Tensor:
            return torch.nn.functional.normalize(torch.randn(*shape, DIM, generator=generator), dim=-1)

        label_map = torch.zeros(num_samples, FRAMES, HEIGHT, WIDTH, dtype=torch.uint8)
        label_map[:, :, 4:20, 2:18] = 1
        label_map[:-1, 1:, 8:30, 26:46] = 2
        shade = torch.tensor([0.0, 0.9, -0.9])[label_map.long()].unsqueeze(
            1
        )  # what a router can tell them by
        cast_mask = torch.zeros(num_samples, num_slots, dtype=torch.bool)
        cast_mask[:, :2] = True
        cast_mask[-1, 1] = False
        return Batch(
            video=shade + 0.1 * torch.randn(num_samples, 3, FRAMES, HEIGHT, WIDTH, generator=generator),
            label_map=label_map,
            references=unit(num_samples, num_slots, 4),
            reference_mask=cast_mask[..., None] & (torch.arange(4) < 3),
            own_faces=unit(num_samples, num_slots),
            own_mask=cast_mask.clone(),
            cast_mask=cast_mask,
            cast=(("anna", "ben"),) * (num_samples - 1) + (("anna",),),
            captions=tuple(f"Anna talks to Ben, take {i}." for i in range(num_samples)),
            keys=tuple(f"sample-{i}" for i in range(num_samples)),
            positions=torch.arange(num_samples) + 10,
        )

    return make
