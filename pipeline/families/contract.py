"""What a video model family must offer: its transformer, its frozen video codec and text, and its latent grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, Self

import torch
from torch import nn

from data_prep.records import InputError
from pipeline.config import FamilyConfig
from pipeline.objective.processes import Process


@dataclass(frozen=True)
class LatentGrid:
    """How pixels become latent cells, and cells tokens.

    ``frames`` source frames share a latent frame, except the first, which has its own (the causal VAE's
    1 | 4 | 4 ...; 1 where time is not compressed); a cell is ``pixels`` × ``pixels``; a token is ``patch``
    (t, h, w) cells. ``only``: num_frames, height_px and width_px of the one video that learned positions allow.
    """

    frames: int
    pixels: int
    patch: tuple[int, int, int]
    only: tuple[int, int, int] | None = None

    def num_tokens(self, num_frames: int, height_px: int, width_px: int) -> tuple[int, int]:
        """Visual tokens of a video, and their number with the frames that fill the last; raises as ``size``."""
        t, h, w = self.size(num_frames, height_px, width_px)
        per_frame = (h // self.patch[1]) * (w // self.patch[2])
        return per_frame * t // self.patch[0], per_frame * -(-t // self.patch[0])

    def size(self, num_frames: int, height_px: int, width_px: int) -> tuple[int, int, int]:
        """Latent (t, h, w) of a video; raises InputError where the video does not fill the grid."""
        if self.only not in (None, (num_frames, height_px, width_px)):
            raise InputError(
                f"num_frames, height_px, width_px: {num_frames}, {height_px}, {width_px} came; this model has "
                f"learned positions for one video alone; use {', '.join(map(str, self.only or ()))}"
            )
        if num_frames < 1 or (num_frames - 1) % self.frames:
            raise InputError(
                f"num_frames: {num_frames} does not fit this family's grouping; use 1 + a multiple of {self.frames}"
            )
        t = 1 + (num_frames - 1) // self.frames
        for field, value, cells in (
            ("height_px", height_px, self.patch[1]),
            ("width_px", width_px, self.patch[2]),
        ):
            if value < 1 or value % (self.pixels * cells):
                raise InputError(
                    f"{field}: {value} does not fit this family; use a multiple of {self.pixels * cells}"
                )
        return t, height_px // self.pixels, width_px // self.pixels

    def coverage(self, label_map: torch.Tensor, num_characters: int) -> torch.Tensor:
        """Share of each latent cell that each character covers.

        label_map: u8[B,T,H,W], 0 nobody, k the k-th of the cast. Returns f32[B,N,t,h,w] in [0,1]: the mean over
        the cell's own source frames and pixels, so a mask never leaks into frames that another cell encodes.
        """
        b, num_frames, height, width = label_map.shape
        t, h, w = self.size(num_frames, height, width)
        slots = torch.arange(1, num_characters + 1, device=label_map.device).view(1, -1, 1, 1, 1)
        one_hot = (label_map.unsqueeze(1) == slots).float()  # [B,N,T,H,W]
        cells = one_hot.view(b, num_characters, num_frames, h, self.pixels, w, self.pixels).mean((4, 6))
        rest = cells[:, :, 1:].reshape(b, num_characters, t - 1, self.frames, h, w).mean(3)
        return torch.cat([cells[:, :, :1], rest], 2)

    def missing(self, num_latent_frames: int) -> int:
        """Latent frames that are put before these until tokens of ``patch[0]`` frames are full; they are noised,
        trained and sampled as the others are, and dropped before decoding."""
        return -num_latent_frames % self.patch[0]

    def filled(self, cells: torch.Tensor) -> torch.Tensor:
        """[B,C,t,h,w] with its first frame repeated before it until tokens of ``patch[0]`` frames are full."""
        missing = self.missing(cells.shape[2])
        return torch.cat([cells[:, :, :1].expand(-1, -1, missing, -1, -1), cells], 2) if missing else cells

    def tokens(self, cells: torch.Tensor) -> torch.Tensor:
        """f32[B,N,t,h,w] over latent cells to f32[B,N,L] over the transformer's tokens, by their mean."""
        return nn.functional.avg_pool3d(self.filled(cells), self.patch).flatten(2)


@dataclass(frozen=True)
class Entrance:
    """Where a transformer makes visual tokens of latents. module: it answers [B,W,t,h,w], or, where ``joint``,
    [B,S+L,W] with the visual tokens, in the order of t, h, w, behind those of the text f32[B,S,D] that is its first
    argument; channels: of the latents; patch: cells (t, h, w) of a token."""

    module: nn.Module
    channels: int
    patch: tuple[int, int, int]
    joint: bool = False


@dataclass(frozen=True)
class Encoded:
    """What the frozen parts make of B videos. latents: f32[B,C,t,h,w], normalised; channels: f32[B,C',t,h,w] that
    an image-to-video transformer reads beside noisy latents, or None; image: f32[B,S,D] tokens of the first frame's
    picture, or None."""

    latents: torch.Tensor
    channels: torch.Tensor | None = None
    image: torch.Tensor | None = None


@dataclass(frozen=True)
class Given:
    """What a transformer is told beside noisy latents. text: f32[B,S,D]; channels, image: as in ``Encoded``."""

    text: torch.Tensor
    channels: torch.Tensor | None = None
    image: torch.Tensor | None = None

    def to(self, dtype: torch.dtype) -> Given:
        """The same in another precision."""
        rest = (None if value is None else value.to(dtype) for value in (self.channels, self.image))
        return Given(self.text.to(dtype), *rest)


class Frozen(Protocol):
    """What is frozen around a transformer, without it. Weights are read at the first use, so that a training whose
    every output of them is cached never reads them."""

    grid: LatentGrid

    def fingerprint(self) -> str:
        """What ``encode`` and ``embed_text`` depend on, as a hash, had without reading whole weights (see
        ``fingerprints.of_files``): what is cached under another one is never used."""

    def encode(self, video: torch.Tensor) -> Encoded:
        """f32[B,3,T,H,W] in [-1,1], whose first frame is also the picture of an image-to-video transformer."""

    def encode_pictures(self, pictures: torch.Tensor) -> torch.Tensor:
        """f32[B,3,H,W] in [-1,1], of any size that fills cells, each as a video of one frame: f32[B,C,1,h,w]."""

    def embed_text(self, captions: Sequence[str]) -> torch.Tensor:
        """f32[B,S,D]; the empty string is what a dropped caption becomes."""


@dataclass(frozen=True)
class Outline:
    """What is known of a model before its weights are read. anchors: whether its transformer takes a noise level
    per latent frame, so that a first frame can be given clean; pictured: whether it cannot do without a first
    frame's picture (image-to-video)."""

    grid: LatentGrid
    anchors: bool
    pictured: bool = False


class Family(Frozen, Protocol):
    """One kind of video diffusion transformer, with what is frozen around it.

    ``sites`` are the modules (one per block, in order, each of hidden width ``width``) after whose output
    identity attention adds its own: the last attention before the feed-forward. ``entrance`` is where pictures of
    the cast are added to the noisy latents. ``self_attentions`` are the modules, one per block, in which visual
    tokens read each other and whose ``attention_mask``, [1,1,L,L], is added to scores; none where they take no such
    mask. ``process`` is how noise is added.
    ``pretrained`` says that its weights are had from elsewhere: a run keeps only what it changed.
    """

    transformer: nn.Module
    sites: tuple[nn.Module, ...]
    self_attentions: tuple[nn.Module, ...]
    width: int
    entrance: Entrance
    latent_channels: int
    outline: Outline
    process: Process
    pretrained: ClassVar[bool]

    @classmethod
    def look(cls, config: FamilyConfig) -> Outline:
        """What the configuration, and the configuration files of a pretrained model, say; loads no weights.

        Raises:
            InputError: there is no such model, or it is not of this family.
        """

    @classmethod
    def create(
        cls,
        config: FamilyConfig,
        videos: Iterable[torch.Tensor],
        seed: int,
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """A family to train; ``videos``, each f32[T,3,H,W] in [-1,1], are what a fitted codec is fitted on;
        ``dtype``: as of ``load``, of a pretrained one."""

    @classmethod
    def load(cls, config: FamilyConfig, folder: Path, dtype: torch.dtype = torch.float32) -> Self:
        """The family that ``save_frozen`` and the transformer's ``save_pretrained`` left in ``folder``; a
        pretrained one whose transformer was not changed is not there and comes from where it came first. ``dtype``:
        of the transformer, but for what its class keeps in fp32."""

    @classmethod
    def frozen(cls, config: FamilyConfig, folder: Path | None) -> Frozen:
        """The frozen parts alone, of the family that ``load`` would give for ``folder``; None: of a pretrained one,
        from where it comes."""

    def components(self) -> dict[str, nn.Module]:
        """The frozen modules and, of two experts, the other one, by diffusers' names; loaded by this."""

    def save_frozen(self, folder: Path) -> None:
        """Writes what is neither transformer nor identity and cannot be had elsewhere."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """f32[B,C,t,h,w] to f32[B,3,T,H,W] in [-1,1]; gradients pass."""

    def velocity(self, latents: torch.Tensor, level: torch.Tensor, given: Given) -> torch.Tensor:
        """The transformer's estimate of the process's velocity, f32[B,C,t,h,w], at noise levels f32[B,t] in [0,1],
        equal within a sample but for a first frame at 0 where ``outline.anchors``."""
