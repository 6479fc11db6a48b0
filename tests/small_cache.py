"""A cache small enough for tests, computed in this process, and the models it is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from data_prep.records import F32, U8
from jobs.cache import items_of
from jobs.cache_work import Asked, Chunk, Kind, Opened
from pipeline.config import (
    DataConfig,
    FamilyConfig,
    IdentityConfig,
    ModelConfig,
    NoiseConfig,
    TinyConfig,
    TrainConfig,
)
from pipeline.data.features import Recogniser
from pipeline.model import Model

DIM = 48
FAMILIES = {  # of each a model small enough, whose grid takes 3 frames of 32 x 48
    "tiny": FamilyConfig(
        "tiny",
        TinyConfig(
            patch_px=8,
            latent_channels=24,
            num_layers=1,
            num_heads=2,
            head_dim=24,
            ffn_dim=32,
            text_tokens=8,
            text_dim=16,
        ),
    )
}


def embed(crops: U8) -> tuple[F32, F32]:
    small = crops.reshape(len(crops), 4, 28, 4, 28, 3).mean((2, 4)).reshape(len(crops), DIM)
    norms = np.linalg.norm(small, axis=1)
    return np.asarray(small / norms[:, None], np.float32), np.asarray(norms, np.float32)


RECOGNISER = Recogniser("means", embed, "a" * 64, DIM, min_norm=1.0)


def points(crops: U8) -> F32:
    """Around the middle, moved by the pixels."""
    corner = crops.reshape(len(crops), -1)[:, :10].reshape(-1, 5, 2)
    return np.asarray(20 + corner / 4, np.float32)


PICTURED = replace(RECOGNISER, landmarks=points, landmarks_sha256="b" * 64)


def configured(shards: Path, features: Path, family: FamilyConfig, **changes: object) -> TrainConfig:
    data = {"num_frames": 3, "frame_stride": 2, "num_workers": 0, "min_own_face_px": 8, **changes}
    identity = IdentityConfig(
        embedding_dim=DIM, tokens_per_character=2, width=16, encoder_layers=1, num_heads=2
    )
    return TrainConfig(
        run="none",
        batch_size=4,
        model=ModelConfig(family=family, identity=identity, noise=NoiseConfig(text_drop=0.3)),
        data=DataConfig(shards=str(shards), features=str(features), **data),  # type: ignore[arg-type]
    )


def cached(config: TrainConfig, model: Model, parts: Path, recogniser: Recogniser = RECOGNISER) -> Opened:
    """What castbank cache leaves, computed here; the codec is the model's."""
    parts.mkdir(parents=True, exist_ok=True)
    model.family.save_frozen(parts)
    opened = Opened(Asked(config, recogniser, parts, batch=3))
    kinds: tuple[Kind, ...] = ("text", "faces", "latents")
    for kind in kinds:
        work: Callable[[Chunk], None] = getattr(opened, kind)
        with torch.no_grad():
            work(Chunk(b"", kind, tuple(items_of(opened, kind))))
    return opened
