"""How many floating-point operations a training takes, from shapes alone, and so what it costs on known GPUs.

Matrix products and attentions are counted, as PyTorch's own counter counts them (tests compare the two); norms,
activations and the frozen codec and text encoder, whose outputs are cached, are not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.memory.activations import Tokens
from pipeline.memory.plan import Training
from pipeline.memory.weights import Architecture, Weight, identity

PEAK = {"A100": 312e12, "H100": 989e12}  # dense bf16 operations a second, by NVIDIA's data sheets
UTILISATION = (
    0.35  # of that, in training; 0.3 to 0.45 is what published trainings of large transformers reach
)


@dataclass(frozen=True)
class Expected:
    """What a whole training takes. step: operations of one sample in one update; total: of all; gpu_hours: by card,
    at a share of its peak."""

    step: float
    total: float
    gpu_hours: Mapping[str, float]


def expected(training: Training, num_steps: int, batch: int, utilisation: float = UTILISATION) -> Expected:
    """Of ``num_steps`` updates with ``batch`` samples each."""
    step = forward_operations(training) * passes(training)
    total = step * num_steps * batch
    hours = {card: total / (peak * utilisation) / 3600 for card, peak in PEAK.items()}
    return Expected(step, total, hours)


def passes(training: Training) -> float:
    """Forward passes that an update costs as much as: backward has two products for each of the forward, one of
    which, the weights' own gradient, a frozen layer leaves out; checkpointing runs forward once more."""
    full = training.adapter.kind == "full" and training.trained_base
    return 1 + (2 if full else 1) + training.checkpointing


def forward_operations(training: Training) -> float:
    """Of one sample: the transformer's and the identity attentions'."""
    arch, tokens = training.arch, training.tokens
    total = sum(2.0 * w.numel * w.copies * rows_of(w, arch, tokens) for w in arch.weights if _multiplies(w))
    if arch.kind == "wan":
        pairs = tokens.visual * (tokens.visual + tokens.text + tokens.image)
    else:
        pairs = (tokens.visual + tokens.text) ** 2
    total += 4.0 * pairs * arch.width * arch.layers
    return total + _identity(training)


def rows_of(weight: Weight, arch: Architecture, tokens: Tokens) -> int:
    """How many tokens of one sample a layer of the transformer is applied to."""
    name = weight.name
    if name.startswith(("time_embedding", "ofs_embedding", "norm_out.linear")) or ".linear." in name:
        return 1  # of a noise level
    if name.startswith(("condition_embedder.time_embedder", "condition_embedder.time_proj")):
        return tokens.visual if tokens.per_token_timesteps else 1
    if "text_embedder" in name or "text_proj" in name or "attn2.to_k" in name or "attn2.to_v" in name:
        return tokens.text
    if "image_embedder" in name or "attn2.add_" in name:
        return tokens.image
    if arch.kind == "cogvideox" and name.startswith("transformer_blocks."):
        return tokens.visual + tokens.text
    return tokens.visual


def _multiplies(weight: Weight) -> bool:
    """Whether it is the matrix of a linear layer or a patch embedding; tables and norms multiply no tokens."""
    return weight.name.endswith(".weight") and len(weight.shape) > 1


def _identity(training: Training) -> float:
    """The attentions' products with visual tokens and with the cast's tokens; the encoder's are a thousandth."""
    network, arch, tokens = training.identity, training.arch, training.tokens
    if network is None:
        return 0.0
    read = tokens.cast * (network.tokens_per_character + 1)
    cells = arch.out_channels * math.prod(arch.patch)
    parts = identity(network, arch.width, arch.layers, cells)
    sizes = {w.name.removesuffix(".weight"): w for w in parts if _multiplies(w)}
    rows = {"to_q": tokens.visual, "to_out": tokens.visual, "to_k": read, "to_v": read}
    total = sum(
        2.0 * sizes[f"attentions.{name}"].numel * sizes[f"attentions.{name}"].copies * count
        for name, count in rows.items()
    )
    copies = sizes["attentions.to_q"].copies
    return total + 4.0 * tokens.visual * read * arch.width * copies
