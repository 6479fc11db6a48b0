"""Noise levels as the time steps that a Wan transformer reads: one per sample, or one per token."""

from __future__ import annotations

import torch

TIMESTEPS = 1000.0  # Wan's transformer reads sigma on this scale


def timesteps_of(level: torch.Tensor, tokens_per_frame: int) -> torch.Tensor:
    """Wan's time steps of levels f32[B,t] in [0,1]: f32[B] where a sample's frames are all at one level, which
    costs a row of modulation per sample, else f32[B,L], one per token."""
    if bool((level == level[:, :1]).all()):
        return level[:, 0] * TIMESTEPS
    return (level * TIMESTEPS).repeat_interleave(tokens_per_frame, 1)
