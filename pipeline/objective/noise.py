"""All that is random in training: noise levels, noise, dropped conditions, which references, and their noise.

Every number comes from a stream of its own, named by run seed, the sample's position in the run and a purpose, so
that the answer does not depend on how samples are batched, on the number of ranks, or on a resume.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.batch import Batch
from pipeline.config import NoiseConfig
from pipeline.objective.processes import Process


def stream(seed: int, position: int, purpose: str, *index: int) -> torch.Generator:
    """The generator of one purpose for one sample, independent of all others (numpy's SeedSequence mixes)."""
    words = np.random.SeedSequence([seed, position, zlib.crc32(purpose.encode()), *index])
    return torch.Generator().manual_seed(int(words.generate_state(1, np.uint64)[0]))


def coins(seed: int, positions: torch.Tensor, purpose: str, probability: float) -> torch.Tensor:
    """bool[B]: True with the given probability, by each sample's own stream."""
    draws = [torch.rand((), generator=stream(seed, int(p), purpose)) for p in positions]
    return (torch.stack(draws) < probability).to(positions.device)


def noise_levels(config: NoiseConfig, seed: int, positions: torch.Tensor, process: Process) -> torch.Tensor:
    """f32[B] in [0,1]: one level per sample, as the process spreads them."""
    draws = [torch.rand((), generator=stream(seed, int(p), "sigma")) for p in positions]
    quantile = torch.stack(draws).clamp(min=torch.finfo(torch.float32).eps)  # rand may give 0, no quantile
    return process.levels(quantile, config.distribution).to(positions.device)


GIVEN = ("first", "history", "ends")  # what may be given clean of a sample


def given_frames(config: NoiseConfig, seed: int, positions: torch.Tensor, num_frames: int) -> torch.Tensor:
    """bool[B,t]: the latent frames that an anchored sample is given, never all of several: the first, as many from
    the first as are drawn, or the first and the last."""
    rows = torch.zeros(len(positions), num_frames, dtype=torch.bool)
    rows[:, 0] = True
    if tuple(config.given) != ("first",) and num_frames > 2:
        for row, position in zip(rows, positions.tolist(), strict=True):
            drawing = stream(seed, position, "given")
            kind = config.given[int(torch.randint(len(config.given), (), generator=drawing))]
            if kind == "history":
                row[: int(torch.randint(1, num_frames, (), generator=drawing))] = True
            elif kind == "ends":
                row[-1] = True
    return rows.to(positions.device)


def anchored(level: torch.Tensor, anchors: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """Levels f32[B] to f32[B,t] per latent frame, 0 at what is given (bool[B,t]) of samples with an anchor
    (bool[B])."""
    return torch.where(anchors[:, None] & given, 0.0, level[:, None])


def noise_like(latents: torch.Tensor, seed: int, positions: torch.Tensor) -> torch.Tensor:
    """Standard normal noise of the latents' shape [B,...], each sample from its own stream."""
    shape = latents.shape[1:]
    rows = [torch.randn(shape, generator=stream(seed, int(p), "noise")) for p in positions]
    return torch.stack(rows).to(latents.device)


@dataclass(frozen=True)
class ChosenReferences:
    """embeddings: f32[B,N,R,D] unit rows; mask: bool[B,N,R]; outside: bool[B,N], False where the sample's own
    face was taken or the slot is empty."""

    embeddings: torch.Tensor
    mask: torch.Tensor
    outside: torch.Tensor


def choose_references(config: NoiseConfig, seed: int, batch: Batch) -> ChosenReferences:
    """Outside references with probability ``cross_face`` per sample, else the sample's own face, both noised.

    ConsisID (arXiv 2411.17440), section 3.3, where the mix keeps a model from copying the reference. A slot
    without an own face takes the outside references: they exist by the rule of preparation.
    """
    cross = coins(seed, batch.positions, "cross_face", config.cross_face)
    own = ~cross[:, None] & batch.own_mask & batch.cast_mask  # [B,N]
    embeddings = batch.references.clone()
    embeddings[..., 0, :] = torch.where(own[..., None], batch.own_faces, batch.references[..., 0, :])
    first = torch.arange(batch.reference_mask.shape[-1], device=own.device) == 0
    mask = torch.where(own[..., None], first, batch.reference_mask)
    noised = _noise_references(config, seed, batch.positions, embeddings, mask)
    return ChosenReferences(noised, mask, batch.cast_mask & ~own)


def noise_pictures(
    config: NoiseConfig, seed: int, positions: torch.Tensor, pictures: torch.Tensor
) -> torch.Tensor:
    """Adds σ·ε to pictures f32[B,...] in [-1,1], with the σ of each sample's embeddings (ConsisID's code, which
    noises the reference's picture and its landmarks before they are encoded)."""
    noised = []
    for picture, position in zip(pictures, positions.tolist(), strict=True):
        sigma = _reference_sigma(config, seed, position)
        noise = torch.randn(picture.shape, generator=stream(seed, position, "picture_noise"))
        noised.append(picture + sigma * noise.to(picture))
    return torch.stack(noised)


def _reference_sigma(config: NoiseConfig, seed: int, position: int) -> float:
    log_sigma = torch.randn((), generator=stream(seed, position, "reference_sigma"))
    spread = config.reference_log_sigma_mean + config.reference_log_sigma_std * log_sigma
    return float(torch.exp(spread).item())


def _noise_references(
    config: NoiseConfig, seed: int, positions: torch.Tensor, embeddings: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Adds σ·ε/√D to each valid unit embedding and renormalises; σ = exp(N(mean, std)) per sample (ConsisID's
    code, there on pixels). Divided by √D, as a unit vector's entries are of that size."""
    noised = embeddings.clone()
    dim = embeddings.shape[-1]
    for b, position in enumerate(positions.tolist()):
        sigma = _reference_sigma(config, seed, position)
        for n, r in mask[b].nonzero().tolist():
            noise = torch.randn(dim, generator=stream(seed, position, "reference_noise", n, r))
            noised[b, n, r] += (sigma / dim**0.5) * noise.to(embeddings)
    return torch.where(mask[..., None], torch.nn.functional.normalize(noised, dim=-1), embeddings)
