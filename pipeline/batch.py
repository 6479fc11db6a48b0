"""What the trainer hands to an objective: one batch of samples, as tensors, and what an objective must answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypeVar

import torch


@dataclass(frozen=True)
class Frozen:
    """What a family's frozen parts make of B samples, read from a cache.

    latents: [B,C,t,h,w], channels and image: as in ``families.contract.Encoded``, in the stored precision;
    coverage: f32[B,N,t,h,w], share of each latent cell that each character covers; text: [B,S',D], the first of
    ``text_rows`` rows, and empty: [S'',D], of what a dropped caption becomes; the rows that follow are zeros.
    """

    latents: torch.Tensor
    channels: torch.Tensor | None
    image: torch.Tensor | None
    coverage: torch.Tensor
    text: torch.Tensor
    empty: torch.Tensor
    text_rows: int

    def to(self, device: torch.device | str) -> Frozen:
        """The same with every tensor on ``device``."""
        return mapped(self, lambda tensor: tensor.to(device))

    def texts(self, dropped: torch.Tensor) -> torch.Tensor:
        """f32[B,S,D], of the empty caption where ``dropped`` (bool[B])."""
        text = self.text.new_zeros(len(self.text), self.text_rows, self.text.shape[2], dtype=torch.float32)
        text[:, : self.text.shape[1]] = self.text
        empty = torch.zeros_like(text[0])
        empty[: len(self.empty)] = self.empty
        return torch.where(dropped[:, None, None], empty, text)


@dataclass(frozen=True)
class Batch:
    """B samples of T frames; N cast slots and R references per slot, padded; D the recogniser's width.

    video: f32[B,3,T,H,W] in [-1,1], and label_map: u8[B,T,H,W], 0 nobody, k the k-th of the cast; or, instead of
    both, ``frozen``: what comes of them, from a cache;
    references: f32[B,N,R,D] unit recogniser embeddings of faces from outside the sample's frames;
    reference_mask: bool[B,N,R]; own_faces: f32[B,N,D] embeddings of a face cropped on purpose from the
    sample's own frames, zeros where none was usable; own_mask: bool[B,N]; cast_mask: bool[B,N];
    cast: per sample the character ids by slot; captions: B training captions; keys: B sample keys;
    positions: i64[B] place of each sample in the run's whole stream of samples, which seeds its noise, so that
    a resumed run, or one with another number of ranks, draws the same;
    pictures: u8[B,N,2,112,112,3] of each character an outside reference and its own face, and landmarks:
    f32[B,N,2,5,2] of both in their pixels (see ``features``), where the low-frequency path reads them, else None;
    progress: f64[B], all the same: share of the run's steps that are done, in [0,1), for what changes with it;
    None, where nobody trains, is the end.
    """

    video: torch.Tensor | None
    label_map: torch.Tensor | None
    references: torch.Tensor
    reference_mask: torch.Tensor
    own_faces: torch.Tensor
    own_mask: torch.Tensor
    cast_mask: torch.Tensor
    cast: tuple[tuple[str, ...], ...]
    captions: tuple[str, ...]
    keys: tuple[str, ...]
    positions: torch.Tensor
    frozen: Frozen | None = None
    pictures: torch.Tensor | None = None
    landmarks: torch.Tensor | None = None
    progress: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with every tensor on ``device``."""
        return mapped(self, lambda tensor: tensor.to(device))


Held = TypeVar("Held", Frozen, Batch)


def mapped(held: Held, change: Callable[[torch.Tensor], Any]) -> Held:
    """The same with each of its tensors changed."""
    values = {f.name: getattr(held, f.name) for f in fields(held)}
    changed: dict[str, Any] = {
        name: mapped(value, change) if isinstance(value, Frozen) else change(value)
        for name, value in values.items()
        if isinstance(value, torch.Tensor | Frozen)
    }
    return replace(held, **changed)


class Objective(Protocol):
    """An ``nn.Module`` that turns a batch into named scalars, of which ``loss`` is the one to minimise; what only
    some batches tell of is a pair, f32[2] of a sum and a count (see ``curves``).

    All randomness is drawn from generators seeded by (``seed``, ``batch.positions``): same batch, same answer.
    """

    def __call__(self, batch: Batch) -> dict[str, torch.Tensor]: ...
