"""The model as one thing: a family's transformer and frozen parts and the identity network; made, saved, loaded.

An export folder holds ``model.yaml`` (the resolved knobs), ``transformer/`` (diffusers' own layout, without LoRA;
not there where it is a pretrained one, unchanged),
``autoencoder.safetensors`` where the family has a fitted one, ``identity.safetensors``, ``lora/`` (peft's own
layout) where there is one, and ``bank/``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import nn

from data_prep.records import InputError
from pipeline import adapters
from pipeline.config import FamilyConfig, ModelConfig
from pipeline.families import family_type
from pipeline.families.contract import Family, Given
from pipeline.identity.attention import CastContext
from pipeline.identity.network import IdentityNetwork


class Model(nn.Module):
    """Trainable parts as submodules (``transformer``, ``identity``); ``family`` also knows the frozen ones."""

    def __init__(self, config: ModelConfig, family: Family, seed: int) -> None:
        super().__init__()
        self.config = config
        self.family = family
        self.transformer = family.transformer
        self.base_changed = False  # whether the transformer's own weights may differ from the pretrained ones
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.identity = IdentityNetwork(config.identity, family.sites, family.width, family.entrance)

    def velocity(
        self, latents: torch.Tensor, level: torch.Tensor, given: Given, context: CastContext | None
    ) -> torch.Tensor:
        """The family's velocity f32[B,C,t,h,w] for a cast, or without identity where ``context`` is None; ``level``
        f32[B,t] per latent frame."""
        dtype = next(self.identity.parameters()).dtype
        with self.identity.slot.holding(context):
            return self.family.velocity(latents.to(dtype), level, given.to(dtype))

    @torch.no_grad()
    def encode_canvases(self, canvases: torch.Tensor) -> torch.Tensor:
        """f32[B,2,3,H,W] in [-1,1], see ``identity.canvas``, to latents f32[B,C,2,h,w]."""
        latents = self.family.encode_pictures(canvases.flatten(0, 1))  # [2B,C,1,h,w]
        return latents[:, :, 0].reshape(-1, 2, *latents.shape[1:2], *latents.shape[3:]).transpose(1, 2)

    def full_precision(self) -> list[nn.Parameter]:
        """Frozen weights that the transformer's class keeps in fp32 whatever the rest (in Wan, modulation tables
        and norms), and that were loaded so."""
        named = self.transformer.named_parameters()
        frozen = [(name, p) for name, p in named if not p.requires_grad and p.dtype == torch.float32]
        return [p for name, p in frozen if self._keeps(name)]

    def convert(self, dtype: torch.dtype) -> None:
        """Give the transformer the precision in which ``load`` would have loaded it."""
        for name, parameter in self.transformer.named_parameters():
            if not self._keeps(name):
                parameter.data = parameter.data.to(dtype)

    def _keeps(self, name: str) -> bool:
        kept = set(getattr(self.transformer, "_keep_in_fp32_modules", None) or ())
        return bool(kept & set(name.split(".")))

    def checkpoint_activations(self) -> None:
        """Trades compute for memory: blocks are run again in backward."""
        enable: Any = self.transformer.enable_gradient_checkpointing
        enable(self.identity.slot.checkpoint)


def create(
    config: ModelConfig, videos: Iterable[torch.Tensor], seed: int, dtype: torch.dtype = torch.float32
) -> Model:
    """A new model; a fitted codec is fitted on the videos, each f32[T,3,H,W] in [-1,1], the same on every rank;
    ``dtype``: of a pretrained transformer, see ``contract.Family``."""
    return Model(config, family_type(config.family.name).create(config.family, videos, seed, dtype), seed)


def save(model: Model, folder: Path) -> None:
    """Writes an export, all but the bank; the folder is the caller's to commit."""
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.structured(model.config), folder / "model.yaml")
    if not model.family.pretrained or model.base_changed:
        adapters.save_base(model.transformer, folder / "transformer")
    adapters.save_lora(model.transformer, folder / "lora")
    model.family.save_frozen(folder)
    weights = {name: value.contiguous() for name, value in model.identity.state_dict().items()}
    save_file(weights, folder / "identity.safetensors")


def load(folder: Path, dtype: torch.dtype = torch.float32, base: str = "", lora: Path | None = None) -> Model:
    """The model of an export, its LoRA in place where it has one; raises InputError for any other folder.

    dtype: of the transformer, but for what its class keeps in fp32; identity is fp32. base: a published model, by
    folder or hub id, instead of the one that the export names. lora: folder of a LoRA instead of the export's.
    """
    config = read_config(folder)
    if base:
        config = replace(config, family=_on(config, base, folder))
    model = Model(config, family_type(config.family.name).load(config.family, folder, dtype), seed=0)
    model.base_changed = (folder / "transformer").is_dir()
    model.identity.load_state_dict(load_file(folder / "identity.safetensors"))
    lora = lora or folder / "lora"
    if lora.is_dir():
        adapters.load_lora(model.transformer, lora)
    return model


def read_config(folder: Path) -> ModelConfig:
    """The resolved knobs of an export; raises InputError where it is none."""
    if not (folder / "model.yaml").is_file():
        raise InputError(f"{folder}: not an exported model (no model.yaml in it); give a run's export folder")
    merged = OmegaConf.merge(OmegaConf.structured(ModelConfig), OmegaConf.load(folder / "model.yaml"))
    config = OmegaConf.to_object(merged)
    assert isinstance(config, ModelConfig)
    return config


def _on(config: ModelConfig, base: str, folder: Path) -> FamilyConfig:
    """The family over another published model."""
    name = config.family.name
    if not family_type(name).pretrained or (folder / "transformer").is_dir():
        raise InputError(
            f"base: {base!r} came, but {folder} has all weights of its own transformer, which its network was "
            f"trained with; give {folder} itself as base"
        )
    section = replace(getattr(config.family, name), pretrained=base, revision="")
    return replace(config.family, **{name: section})
