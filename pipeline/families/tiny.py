"""The tiny family: a real Wan transformer of a few million parameters on latents that need no trained weights.

It is small enough to learn on a CPU in minutes: videos become half-whitened patch-PCA components, and
captions become fixed random word vectors.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Self, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from data_prep.records import InputError
from pipeline.config import FamilyConfig, TinyConfig
from pipeline.families.contract import Encoded, Entrance, Given, LatentGrid, Outline
from pipeline.families.timesteps import timesteps_of
from pipeline.objective.processes import Flow, Process

LEAST_SIGMA = 0.05  # what a guess is divided by at least, as there
PLACE_CHANNELS = 8  # sine and cosine of two frequencies over height and over width


class PatchPCA(nn.Module):
    """A linear autoencoder of square patches: projections on the first principal components, half whitened.

    A component's variance after scaling is its standard deviation before, and 1 on average: so what is coarse is
    learned first, and what is fine is not drowned. mean: f32[P] of the flattened patches (3 × patch × patch);
    basis: f32[K,P] orthonormal rows, largest variance first; scale: f32[K] what a projection is divided by.
    """

    mean: torch.Tensor
    basis: torch.Tensor
    scale: torch.Tensor

    def __init__(self, mean: torch.Tensor, basis: torch.Tensor, scale: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis)
        self.register_buffer("scale", scale)
        self.patch_px = math.isqrt(mean.numel() // 3)

    @classmethod
    def fit(cls, videos: Iterable[torch.Tensor], patch_px: int, num_components: int) -> Self:
        """Fits on videos f32[T,3,H,W], one pass, in double precision: same videos and order, same bytes.

        Raises InputError without any video.
        """
        size = 3 * patch_px**2
        count, total = 0, torch.zeros(size, dtype=torch.float64)
        outer = torch.zeros(size, size, dtype=torch.float64)
        for video in videos:
            patches = _patches(video, patch_px).reshape(-1, size).double()
            count += len(patches)
            total += patches.sum(0)
            outer += patches.T @ patches
        if count == 0:
            raise InputError("shards: no video to fit the tiny autoencoder on; prepare at least one sample")
        mean = total / count
        variance, vectors = torch.linalg.eigh(outer / count - torch.outer(mean, mean))
        variance, basis = variance.flip(0)[:num_components], vectors.T.flip(0)[:num_components]
        peak = basis.gather(1, basis.abs().argmax(1, keepdim=True))
        basis = basis * peak.sign()  # an eigenvector's sign is arbitrary: its largest entry is positive here
        deviation = variance.clamp(min=1e-6).sqrt()
        scale = deviation.sqrt() * deviation.mean().sqrt()  # latents vary by deviation, 1 on average
        return cls(mean.float(), basis.float().contiguous(), scale.float())

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """f32[B,3,T,H,W] to f32[B,K,T,H/patch,W/patch], unit variance on average over channels."""
        patches = torch.stack([_patches(v.transpose(0, 1), self.patch_px) for v in video])  # [B,T,h,w,P]
        return (((patches - self.mean) @ self.basis.T) / self.scale).permute(0, 4, 1, 2, 3)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The inverse of ``encode`` up to the components left out."""
        b, _, t, h, w = latents.shape
        patches = (latents.permute(0, 2, 3, 4, 1) * self.scale) @ self.basis + self.mean
        cells = patches.view(b, t, h, w, 3, self.patch_px, self.patch_px).permute(0, 4, 1, 2, 5, 3, 6)
        return cells.reshape(b, 3, t, h * self.patch_px, w * self.patch_px)


def _patches(video: torch.Tensor, patch_px: int) -> torch.Tensor:
    """f32[T,3,H,W] to f32[T,h,w,3*patch*patch]."""
    t, c, height, width = video.shape
    h, w = height // patch_px, width // patch_px
    return video.reshape(t, c, h, patch_px, w, patch_px).permute(0, 2, 4, 1, 3, 5).reshape(t, h, w, -1)


def _fitting(videos: Iterable[torch.Tensor], grid: LatentGrid) -> Iterator[torch.Tensor]:
    """The same videos; raises InputError for one that does not fill the grid."""
    for video in videos:
        grid.size(video.shape[0], video.shape[2], video.shape[3])
        yield video


@lru_cache(maxsize=65536)
def _word_vector(word: str, dim: int) -> torch.Tensor:
    seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
    return torch.randn(dim, generator=torch.Generator().manual_seed(seed))


def embed_words(captions: Sequence[str], num_tokens: int, dim: int) -> torch.Tensor:
    """Each word as a fixed random vector that its own spelling seeds, plus a sinusoid of its position.

    Returns f32[B,num_tokens,dim]; words beyond ``num_tokens`` are not read, and what is left over is zero.
    """
    place = torch.arange(num_tokens)[:, None] * torch.exp(-math.log(1e4) * torch.arange(0, dim, 2) / dim)
    position = torch.stack([place.sin(), place.cos()], -1).flatten(1)[:, :dim]
    text = torch.zeros(len(captions), num_tokens, dim)
    for row, caption in zip(text, captions, strict=True):
        for i, word in enumerate(re.findall(r"\w+", caption.lower())[:num_tokens]):
            row[i] = _word_vector(word, dim) + position[i]
    return text


def place_of(latents: torch.Tensor) -> torch.Tensor:
    """Where each cell of f32[B,C,t,h,w] lies in the picture, f32[B,PLACE_CHANNELS,t,h,w].

    Wan's rotary embedding says how far tokens are apart; drawing a scene from noise also takes where they are,
    which a large model works out, and a tiny one does not in minutes.
    """
    b, _, t, h, w = latents.shape
    y, x = ((torch.arange(n, device=latents.device) + 0.5) / n * torch.pi for n in (h, w))
    rows = torch.stack([y.sin(), y.cos(), (2 * y).sin(), (2 * y).cos()])[:, :, None].expand(4, h, w)
    columns = torch.stack([x.sin(), x.cos(), (2 * x).sin(), (2 * x).cos()])[:, None, :].expand(4, h, w)
    return torch.cat([rows, columns])[None, :, None].expand(b, PLACE_CHANNELS, t, h, w).to(latents.dtype)


class TinyFrozen:
    """``contract.Frozen``: the fitted codec, and words."""

    def __init__(self, codec: PatchPCA, config: TinyConfig) -> None:
        self.codec = codec
        self.config = config
        self.grid = LatentGrid(frames=1, pixels=config.patch_px, patch=(1, 1, 1))

    def fingerprint(self) -> str:
        """Of the codec's values, and of how words become vectors."""
        known = self.codec.state_dict()
        digest = hashlib.sha256(f"words {self.config.text_tokens} {self.config.text_dim}".encode())
        for name in sorted(known):
            digest.update(name.encode() + known[name].cpu().numpy().tobytes())
        return digest.hexdigest()

    def encode(self, video: torch.Tensor) -> Encoded:
        """f32[B,3,T,H,W] to f32[B,K,T,h,w]; in full precision whatever the transformer's."""
        return Encoded(self.codec.to(video.device).encode(video.float()))

    def encode_pictures(self, pictures: torch.Tensor) -> torch.Tensor:
        """f32[B,3,H,W] to f32[B,K,1,h,w]."""
        return self.codec.to(pictures.device).encode(pictures.float()[:, :, None])

    def embed_text(self, captions: Sequence[str]) -> torch.Tensor:
        """f32[B,text_tokens,text_dim]."""
        return embed_words(captions, self.config.text_tokens, self.config.text_dim)


class TinyFamily(TinyFrozen):
    """``contract.Family`` over ``diffusers.WanTransformer3DModel``."""

    pretrained: ClassVar[bool] = False

    def __init__(self, transformer: nn.Module, codec: PatchPCA, config: TinyConfig) -> None:
        super().__init__(codec, config)
        self.transformer = transformer
        blocks = cast("Iterable[nn.Module]", transformer.blocks)
        self.sites = tuple(cast("nn.Module", block.attn2) for block in blocks)
        self.self_attentions = tuple(cast("nn.Module", block.attn1) for block in blocks)
        self.width = config.num_heads * config.head_dim
        self.latent_channels = config.latent_channels
        embedding = cast("nn.Module", transformer.patch_embedding)
        self.entrance = Entrance(embedding, self.latent_channels, self.grid.patch)
        self.outline = self.look(FamilyConfig(tiny=config))
        self.process: Process = Flow(config.shift)

    @classmethod
    def look(cls, config: FamilyConfig) -> Outline:
        """A grid of the configured patches."""
        return Outline(LatentGrid(frames=1, pixels=config.tiny.patch_px, patch=(1, 1, 1)), anchors=True)

    @classmethod
    def create(
        cls,
        config: FamilyConfig,
        videos: Iterable[torch.Tensor],
        seed: int,
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """A transformer of random weights, always fp32, and the codec fitted on the videos."""
        from diffusers import WanTransformer3DModel

        tiny = config.tiny
        grid = LatentGrid(frames=1, pixels=tiny.patch_px, patch=(1, 1, 1))
        codec = PatchPCA.fit(_fitting(videos, grid), tiny.patch_px, tiny.latent_channels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            transformer = WanTransformer3DModel(
                patch_size=(1, 1, 1),
                num_attention_heads=tiny.num_heads,
                attention_head_dim=tiny.head_dim,
                in_channels=tiny.latent_channels + PLACE_CHANNELS,
                out_channels=tiny.latent_channels,
                text_dim=tiny.text_dim,
                freq_dim=64,
                ffn_dim=tiny.ffn_dim,
                num_layers=tiny.num_layers,
                rope_max_seq_len=256,
            )
        return cls(transformer, codec, tiny)

    @classmethod
    def load(cls, config: FamilyConfig, folder: Path, dtype: torch.dtype = torch.float32) -> Self:
        """From an export folder."""
        from diffusers import WanTransformer3DModel

        codec = cls.frozen(config, folder).codec
        transformer = WanTransformer3DModel.from_pretrained(folder / "transformer", torch_dtype=dtype)
        return cls(transformer, codec, config.tiny)

    @classmethod
    def frozen(cls, config: FamilyConfig, folder: Path | None) -> TinyFrozen:
        """From an export folder; there is no other place."""
        assert folder is not None, "the tiny family's codec is fitted per run"
        return TinyFrozen(PatchPCA(**load_file(folder / "autoencoder.safetensors")), config.tiny)

    def components(self) -> dict[str, nn.Module]:
        """None: the codec is a matrix, which moves to its input."""
        return {}

    def save_frozen(self, folder: Path) -> None:
        """Writes ``autoencoder.safetensors``."""
        save_file(self.codec.state_dict(), folder / "autoencoder.safetensors")

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """f32[B,K,T,h,w] to f32[B,3,T,H,W], clamped to [-1,1]."""
        return self.codec.to(latents.device).decode(latents.float()).clamp(-1, 1)

    def velocity(self, latents: torch.Tensor, level: torch.Tensor, given: Given) -> torch.Tensor:
        """The transformer guesses the clean latents x̂ from unit-variance input with its place beside it, and
        v = (x_σ − x̂) / σ, σ no less than LEAST_SIGMA: clean patches lie near few directions, noise fills all of
        them, more than a narrow transformer carries (Li & He 2025, arXiv 2511.13720).
        """
        sigma = level.to(latents)[:, None, :, None, None]
        spread = (sigma.square() + (1 - sigma).square()).sqrt()
        scaled = torch.cat([latents / spread, place_of(latents)], 1)
        timesteps = timesteps_of(level, latents.shape[3] * latents.shape[4])
        clean: torch.Tensor = self.transformer(scaled, timesteps, given.text, return_dict=False)[0]
        return (latents - clean) / sigma.clamp(min=LEAST_SIGMA)
