"""Which network made a bank's tokens, and making them anew with another: tokens mean something to that one alone.

A bank says so by a fingerprint of the reference encoder; slots, separator and attentions may be trained on without
changing a token.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from data_prep.records import InputError
from pipeline.config import IdentityConfig
from pipeline.identity.bank import IdentityBank
from pipeline.identity.encoder import ReferenceEncoder

ENCODER = "encoder."  # the reference encoder's tensors in an export's identity.safetensors
NUM_DIGITS = 16  # of a fingerprint


def fingerprint(encoder: nn.Module) -> str:
    """NUM_DIGITS of the sha256 of an encoder's names, shapes and values in float32; equal for equal tokens."""
    digest = hashlib.sha256()
    for name, value in sorted(encoder.state_dict().items()):
        plain = value.detach().cpu().float().contiguous()
        digest.update(f"{name}{tuple(plain.shape)}".encode())
        digest.update(plain.numpy().tobytes())
    return digest.hexdigest()[:NUM_DIGITS]


@torch.no_grad()
def tokens_of(encoder: nn.Module, references: torch.Tensor) -> torch.Tensor:
    """What a bank keeps of one character: references f32[R,D] → tokens f32[K,C]."""
    device = next(encoder.parameters()).device
    mask = torch.ones(1, 1, len(references), dtype=torch.bool, device=device)
    tokens: torch.Tensor = encoder(references[None, None].to(device), mask)[0, 0]
    return tokens.float().cpu()


def read_encoder(export: Path) -> ReferenceEncoder:
    """The reference encoder of an export, without its transformer; raises InputError for any other folder."""
    from omegaconf import OmegaConf
    from safetensors import safe_open

    if not (export / "model.yaml").is_file() or not (export / "identity.safetensors").is_file():
        raise InputError(f"{export}: no identity network here; give a finished run, or its export folder")
    settings = OmegaConf.select(OmegaConf.load(export / "model.yaml"), "identity", default={})
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(IdentityConfig), settings))
    assert isinstance(config, IdentityConfig)
    encoder = ReferenceEncoder(config)
    with safe_open(export / "identity.safetensors", "pt") as file:
        there = file.keys()
        names = [name for name in there if name.startswith(ENCODER)]
        encoder.load_state_dict({name.removeprefix(ENCODER): file.get_tensor(name) for name in names})
    return encoder.eval()


def remade(bank: IdentityBank, encoder: ReferenceEncoder) -> IdentityBank:
    """The same characters with tokens by another encoder; raises InputError where references do not fit it."""
    width, network = encoder.project.in_features, fingerprint(encoder)
    for entry in bank.entries.values():
        if entry.references.shape[1] != width:
            raise InputError(
                f"bank: the references of {entry.name!r} have {entry.references.shape[1]} numbers each (face pack "
                f"{entry.pack or 'not named'}), the network reads {width}; enrol with the run's own pack"
            )
    return IdentityBank(
        replace(entry, tokens=tokens_of(encoder, entry.references), network=network, locked=False)
        for entry in bank.entries.values()
    )
