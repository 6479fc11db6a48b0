"""What follows a training: sample videos with all that tells who should be seen in them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch

from data_prep.decode import decode_mp4
from data_prep.records import F32, U8
from jobs.train_finish import make_samples
from pipeline import model as models
from pipeline.config import DataConfig, FamilyConfig, IdentityConfig, ModelConfig, TinyConfig, TrainConfig
from pipeline.data.features import Recogniser
from pipeline.data.samples import Samples
from pipeline.identity.bank import BankEntry, IdentityBank
from tests.small_shards import CASTS, HEIGHT, WIDTH, make_shards

DIM = 16


def embed(crops: U8) -> tuple[F32, F32]:
    return np.full((len(crops), DIM), DIM**-0.5, np.float32), np.ones(len(crops), np.float32)


def test_each_sample_video_has_a_note_of_its_cast_and_prompt(tmp_path: Path) -> None:
    identity = IdentityConfig(
        embedding_dim=DIM, tokens_per_character=2, width=24, encoder_layers=1, num_heads=2
    )
    tiny = TinyConfig(num_layers=1, num_heads=2, head_dim=24, ffn_dim=32)
    config = TrainConfig(
        run=str(tmp_path / "run"),
        names={"c02": "Bea"},
        model=ModelConfig(family=FamilyConfig(tiny=tiny), identity=identity),
        data=DataConfig(shards=str(make_shards(tmp_path / "shards")), num_frames=3, frame_stride=2),
    )
    (tmp_path / "run").mkdir()
    model = models.create(config.model, [torch.rand(3, 3, HEIGHT, WIDTH)], seed=0)
    bank = IdentityBank(
        BankEntry(name, torch.randn(2, 24), torch.randn(3, DIM)) for name in ("c01", "Bea", "c03")
    )
    samples = Samples(config.data, 0, Recogniser("made", embed, "a" * 64, DIM, 0.0))

    paths = make_samples(config, model.eval(), bank, samples)
    assert [path.name for path in paths] == [
        f"sample-{k:03d}.{kind}" for k in (0, 6) for kind in ("mp4", "png")
    ]
    note = json.loads((tmp_path / "run" / "samples" / "sample-000.json").read_text())
    assert CASTS[0] == ("c01", "c02")
    assert note["cast"] == ["c01", "Bea"]
    assert note["prompt"] == "discs 0"
    video = paths[0].read_bytes()
    assert note["video_sha256"] == hashlib.sha256(video).hexdigest()
    assert decode_mp4(video).shape == (note["config"]["num_frames"], HEIGHT, WIDTH, 3)
