"""The losses of training, each a function of one prediction, weighted by the config field of the same name.

Every loss is f32[B], a number for each sample that depends on that sample alone, and training minimises the mean:
so accumulation, ranks and batch size do not change what is learned. A new loss is one function, one line in
``LOSSES``, one field in ``LossConfig`` and one test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Prediction:
    """What the model answered for B samples, and what it should have.

    velocity, target: f32[B,C,t,h,w]; counted: f32[B,t], 0 at latent frames that were given clean, else 1;
    coverage: f32[B,N,t,h,w] share of each latent cell that each character covers; token_coverage: f32[B,N,L] the
    same per visual token; routing: router logits f32[B,L,N+1] of each identity layer, column 0 nobody, -inf at
    empty slots; takes_mask: bool[B] samples that the mask loss takes.
    """

    velocity: torch.Tensor
    target: torch.Tensor
    counted: torch.Tensor
    coverage: torch.Tensor
    token_coverage: torch.Tensor
    routing: tuple[torch.Tensor, ...]
    takes_mask: torch.Tensor


Loss = Callable[[Prediction], torch.Tensor]


def diffusion(prediction: Prediction) -> torch.Tensor:
    """Mean of (v̂ − v)² over channels and the latent frames that count: flow matching (Lipman et al. 2022, arXiv
    2210.02747), or v-prediction; 0 where no frame counts."""
    error = _squared_error(prediction).mean((1, 3, 4))  # [B,t]
    return mean_where(error, prediction.counted)


def mask(prediction: Prediction) -> torch.Tensor:
    """Dynamic mask loss after ConsisID (arXiv 2411.17440), section 3.3, area-normalised and per character.

    For each sample taken: mean over its visible characters k of Σ m_k·e / Σ m_k, where e is the squared error
    averaged over channels and m_k the character's coverage; 0 where nobody is visible or the sample is not taken.
    So a small face weighs as much as a large one.
    """
    per_character, visible = mask_errors(prediction)
    return mean_where(per_character, visible) * prediction.takes_mask


def mask_errors(prediction: Prediction) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared error over each character's region, f32[B,N], and where there is such a region, bool[B,N]."""
    coverage = prediction.coverage * prediction.counted[:, None, :, None, None]
    error = _squared_error(prediction).mean(1, keepdim=True)
    errors = _weighted_mean((coverage * error).flatten(2), coverage.flatten(2))
    return errors, coverage.flatten(2).sum(-1) > 0


def routing(prediction: Prediction) -> torch.Tensor:
    """Cross-entropy of the router against the label map, mean over layers; each class of a sample weighs alike.

    Classes are nobody and the visible characters: per class k, Σ c_k·(−log p_k) / Σ c_k over tokens, c the
    coverage. Without that balance 'nobody' would be right for nearly all tokens.
    """
    target = _with_nobody(prediction.token_coverage)  # [B,N+1,L]
    present = target.sum(-1) > 0
    layers = []
    for logits in prediction.routing:
        surprise = -logits.float().log_softmax(-1).transpose(1, 2)  # [B,N+1,L]
        surprise = surprise.masked_fill(target == 0, 0.0)  # an empty slot's is infinite
        layers.append(mean_where(_weighted_mean(target * surprise, target), present))
    return torch.stack(layers).mean(0) if layers else prediction.velocity.new_zeros(len(target)).float()


LOSSES: dict[str, Loss] = {"diffusion": diffusion, "mask": mask, "routing": routing}


@torch.no_grad()
def router_accuracy(prediction: Prediction) -> torch.Tensor:
    """Share of visual tokens routed right, each class of a sample weighing alike, mean over layers: f32[B]."""
    target = _with_nobody(prediction.token_coverage)
    truth = torch.nn.functional.one_hot(target.argmax(1), target.shape[1]).transpose(1, 2).float()
    present = truth.sum(-1) > 0
    layers = []
    for logits in prediction.routing:
        right = (logits.argmax(-1) == target.argmax(1)).float().unsqueeze(1)
        layers.append(mean_where(_weighted_mean(truth * right, truth), present))
    return torch.stack(layers).mean(0) if layers else prediction.velocity.new_zeros(len(truth)).float()


def _squared_error(prediction: Prediction) -> torch.Tensor:
    return (prediction.velocity.float() - prediction.target.float()).square()


def _with_nobody(token_coverage: torch.Tensor) -> torch.Tensor:
    """f32[B,N,L] to f32[B,N+1,L], first what nobody covers."""
    nobody = (1 - token_coverage.sum(1, keepdim=True)).clamp(min=0)
    return torch.cat([nobody, token_coverage], 1)


def _weighted_mean(weighted: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Σ weighted / Σ weights over the last axis, 0 where there is no weight."""
    return weighted.sum(-1) / weights.sum(-1).clamp(min=torch.finfo(torch.float32).tiny)


def mean_where(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Mean of values [...,K] over the chosen of the last axis, 0 where none is: [...]."""
    return (values * chosen).sum(-1) / chosen.sum(-1).clamp(min=1)
