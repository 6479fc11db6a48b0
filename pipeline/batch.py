"""What the trainer hands to an objective: one batch of samples, as tensors, and what an objective must answer."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch


@dataclass(frozen=True)
class Batch:
    """B samples of T frames; N cast slots and R references per slot, padded; D the recogniser's width.

    video: f32[B,3,T,H,W] in [-1,1]; label_map: u8[B,T,H,W], 0 nobody, k the k-th of the cast;
    references: f32[B,N,R,D] unit recogniser embeddings of faces from outside the sample's frames;
    reference_mask: bool[B,N,R]; own_faces: f32[B,N,D] embeddings of a face cropped on purpose from the
    sample's own frames, zeros where none was usable; own_mask: bool[B,N]; cast_mask: bool[B,N];
    cast: per sample the character ids by slot; captions: B training captions; keys: B sample keys;
    positions: i64[B] place of each sample in the run's whole stream of samples, which seeds its noise, so that
    a resumed run, or one with another number of ranks, draws the same.
    """

    video: torch.Tensor
    label_map: torch.Tensor
    references: torch.Tensor
    reference_mask: torch.Tensor
    own_faces: torch.Tensor
    own_mask: torch.Tensor
    cast_mask: torch.Tensor
    cast: tuple[tuple[str, ...], ...]
    captions: tuple[str, ...]
    keys: tuple[str, ...]
    positions: torch.Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with every tensor on ``device``."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {k: v.to(device) for k, v in values.items() if isinstance(v, torch.Tensor)}
        return replace(self, **moved)


class Objective(Protocol):
    """An ``nn.Module`` that turns a batch into named scalars, of which ``loss`` is the one to minimise.

    All randomness is drawn from generators seeded by (``seed``, ``batch.positions``): same batch, same answer.
    """

    def __call__(self, batch: Batch) -> dict[str, torch.Tensor]: ...
