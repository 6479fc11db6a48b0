"""A finished run without a training: what of one the verbs that come after it read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch.nn import functional

from pipeline import adapters
from pipeline import model as models
from pipeline.config import AdapterConfig, FamilyConfig, IdentityConfig, ModelConfig, TinyConfig
from pipeline.identity.bank import BankEntry, IdentityBank
from pipeline.identity.tokens import fingerprint, tokens_of

DIM = 16


def make_run(folder: Path, seed: int, faces: dict[str, int], adapter: AdapterConfig | None = None) -> Path:
    """A run whose bank holds these names; a face is a number, faces of one number are alike. A LoRA is random."""
    identity = IdentityConfig(
        embedding_dim=DIM, tokens_per_character=2, width=24, encoder_layers=1, num_heads=2
    )
    tiny = TinyConfig(num_layers=1, num_heads=2, head_dim=24, ffn_dim=32)
    config = ModelConfig(family=FamilyConfig(tiny=tiny), identity=identity)
    config = replace(config, adapter=adapter or config.adapter)
    model = models.create(config, [torch.rand(2, 3, 32, 48)], seed)
    adapters.apply(model.transformer, model.identity, config.adapter, seed)
    for name, parameter in model.transformer.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, 0, 0.1)
    with torch.no_grad():
        models.save(model, folder / "export")
    entries = []
    for name, face in faces.items():
        generator = torch.Generator().manual_seed(sum(name.encode()))
        around = functional.one_hot(torch.tensor(face), DIM).float()
        references = functional.normalize(around + 0.1 * torch.randn(3, DIM, generator=generator), dim=-1)
        entries.append(
            BankEntry(
                name,
                tokens_of(model.identity.encoder, references),
                references,
                f"{name}, in a red hat",
                "embedded",
                "granted",
                "CC-BY-4.0",
                ("clip-1#12", "clip-7#3", "clip-9#0"),
                fingerprint(model.identity.encoder),
            )
        )
    IdentityBank(entries).save(folder / "export" / "bank")
    return folder
