"""Every weight of a transformer, of a LoRA on it and of the identity modules, by name and shape.

Shapes follow diffusers' WanTransformer3DModel and CogVideoXTransformer3DModel argument by argument, so that a
configuration that nobody published can be planned as well; tests compare the sums with the classes themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from data_prep.records import InputError
from pipeline.config import IdentityConfig
from pipeline.memory.quantised import is_quantised


@dataclass(frozen=True)
class Weight:
    """One parameter: its name below the block or model, its shape, and how many blocks have one."""

    name: str
    shape: tuple[int, ...]
    copies: int = 1

    @property
    def numel(self) -> int:
        """Numbers in one copy."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Architecture:
    """What memory depends on: width of the residual stream, of the feed-forward, attention heads, blocks; patch
    (t, h, w) of latent cells per token; text and image widths (0: no image encoder)."""

    kind: str
    width: int
    heads: int
    ffn: int
    layers: int
    in_channels: int
    out_channels: int
    patch: tuple[int, int, int]
    text_width: int
    image_width: int
    weights: tuple[Weight, ...]

    @property
    def num_parameters(self) -> int:
        """Of the transformer without LoRA or identity modules."""
        return sum(weight.numel * weight.copies for weight in self.weights)


def architecture(class_name: str, arguments: Mapping[str, Any]) -> Architecture:
    """The architecture of a diffusers class with these constructor arguments; what is missing has its default.

    Raises:
        InputError: a class that cannot be planned.
    """
    if class_name == "WanTransformer3DModel":
        return _wan(arguments)
    if class_name == "CogVideoXTransformer3DModel":
        return _cogvideox(arguments)
    raise InputError(
        f"transformer class {class_name!r} cannot be planned; known are WanTransformer3DModel and "
        "CogVideoXTransformer3DModel"
    )


def linear(name: str, inputs: int, outputs: int, copies: int = 1, bias: bool = True) -> Iterator[Weight]:
    """Weight and bias of ``torch.nn.Linear(inputs, outputs)``."""
    yield Weight(f"{name}.weight", (outputs, inputs), copies)
    if bias:
        yield Weight(f"{name}.bias", (outputs,), copies)


def norm(name: str, width: int, copies: int = 1, bias: bool = True) -> Iterator[Weight]:
    """Weight, and bias of a LayerNorm."""
    yield Weight(f"{name}.weight", (width,), copies)
    if bias:
        yield Weight(f"{name}.bias", (width,), copies)


def lora(weights: tuple[Weight, ...], targets: tuple[str, ...], rank: int) -> tuple[Weight, ...]:
    """A and B of a LoRA on each linear layer whose name is a target or ends in one, as peft matches names.

    Raises:
        InputError: no layer matches.
    """
    found = []
    for weight in weights:
        layer = weight.name.removesuffix(".weight")
        if len(weight.shape) != 2 or layer == weight.name or not matches(layer, targets):
            continue
        outputs, inputs = weight.shape
        found.append(Weight(f"{layer}.lora_A.weight", (rank, inputs), weight.copies))
        found.append(Weight(f"{layer}.lora_B.weight", (outputs, rank), weight.copies))
    if not found:
        raise InputError(
            f"model.adapter.targets: {', '.join(targets) or 'none'} match no layer; try to_q, to_v"
        )
    return tuple(found)


def quantised(weights: tuple[Weight, ...]) -> tuple[Weight, ...]:
    """Those that a quantised base has in int8 or nf4: of the blocks' linear layers, see ``memory.quantised``."""
    layers = (w for w in weights if len(w.shape) == 2 and w.name.endswith(".weight"))
    return tuple(layer for layer in layers if is_quantised(layer.name))


def matches(layer: str, targets: tuple[str, ...]) -> bool:
    """Whether a LoRA on ``targets`` covers the layer."""
    return any(layer == target or layer.endswith(f".{target}") for target in targets)


def identity(config: IdentityConfig, width: int, sites: int, cells: int = 0) -> tuple[Weight, ...]:
    """The identity network on a transformer of that width with one site per block; ``cells``: numbers in a token's
    patch of latents, for the low-frequency path."""
    inner, attentions = config.width, sites // config.every
    layers = config.encoder_layers
    parts = [
        *linear("encoder.project", config.embedding_dim, 4 * inner),
        *norm("encoder.norm", inner),
        Weight("encoder.queries", (config.tokens_per_character, inner)),
        *norm("encoder.layers.norm_query", inner, layers),
        *linear("encoder.layers.to_q", inner, inner, layers),
        *linear("encoder.layers.to_kv", inner, 2 * inner, layers),
        *linear("encoder.layers.to_out", inner, inner, layers),
        *norm("encoder.layers.feed_forward.0", inner, layers),
        *linear("encoder.layers.feed_forward.1", inner, 4 * inner, layers),
        *linear("encoder.layers.feed_forward.3", 4 * inner, inner, layers),
        Weight("slots", (config.max_cast, inner)),
        Weight("separator", (inner,)),
        *norm("attentions.norm", width, attentions),
    ]
    routed = config.binding == "routed"
    for name in ("to_q", "to_out", *["router_q"] * routed):
        parts.extend(linear(f"attentions.{name}", width, width, attentions))
    for name in ("to_k", "to_v", *["router_k"] * routed):
        parts.extend(linear(f"attentions.{name}", inner, width, attentions))
    if routed:
        parts.append(Weight("attentions.nobody", (width,), attentions))
    if config.low_frequency:
        parts.append(Weight("low_frequency.embed", (width, cells)))
    return tuple(parts)


def _wan(given: Mapping[str, Any]) -> Architecture:
    heads, layers = given.get("num_attention_heads", 40), given.get("num_layers", 40)
    width = heads * given.get("attention_head_dim", 128)
    ffn, text = given.get("ffn_dim", 13824), given.get("text_dim", 4096)
    channels = given.get("in_channels", 16)
    out = given.get("out_channels", 16) or channels
    first, second, third = given.get("patch_size", (1, 2, 2))
    patch = (first, second, third)
    image, added = given.get("image_dim") or 0, given.get("added_kv_proj_dim")
    parts = [
        Weight("patch_embedding.weight", (width, channels, *patch)),
        Weight("patch_embedding.bias", (width,)),
        *linear("condition_embedder.time_embedder.linear_1", given.get("freq_dim", 256), width),
        *linear("condition_embedder.time_embedder.linear_2", width, width),
        *linear("condition_embedder.time_proj", width, 6 * width),
        *linear("condition_embedder.text_embedder.linear_1", text, width),
        *linear("condition_embedder.text_embedder.linear_2", width, width),
        Weight("blocks.scale_shift_table", (1, 6, width), layers),
        *(
            weight
            for name in ("attn1", "attn2")
            for weight in _wan_attention(f"blocks.{name}", width, layers)
        ),
        *linear("blocks.ffn.net.0.proj", width, ffn, layers),
        *linear("blocks.ffn.net.2", ffn, width, layers),
        *linear("proj_out", width, out * math.prod(patch)),
        Weight("scale_shift_table", (1, 2, width)),
    ]
    if given.get("cross_attn_norm", True):
        parts.extend(norm("blocks.norm2", width, layers))
    if added:
        parts.extend(linear("blocks.attn2.add_k_proj", added, width, layers))
        parts.extend(linear("blocks.attn2.add_v_proj", added, width, layers))
        parts.append(Weight("blocks.attn2.norm_added_k.weight", (width,), layers))
    if image:
        prefix = "condition_embedder.image_embedder"
        parts.extend(norm(f"{prefix}.norm1", image))
        parts.extend(linear(f"{prefix}.ff.net.0.proj", image, image))
        parts.extend(linear(f"{prefix}.ff.net.2", image, width))
        parts.extend(norm(f"{prefix}.norm2", width))
    return Architecture(
        "wan", width, heads, ffn, layers, channels, out, patch, text, image if added else 0, tuple(parts)
    )


def _wan_attention(name: str, width: int, layers: int) -> Iterator[Weight]:
    for part in ("to_q", "to_k", "to_v", "to_out.0"):
        yield from linear(f"{name}.{part}", width, width, layers)
    for part in ("norm_q", "norm_k"):
        yield from norm(f"{name}.{part}", width, layers, bias=False)


def _cogvideox(given: Mapping[str, Any]) -> Architecture:
    heads, layers = given.get("num_attention_heads", 30), given.get("num_layers", 30)
    head = given.get("attention_head_dim", 64)
    width = heads * head
    time, text = given.get("time_embed_dim", 512), given.get("text_embed_dim", 4096)
    channels = given.get("in_channels", 16)
    out = given.get("out_channels", 16) or channels
    side, frames = given.get("patch_size", 2), given.get("patch_size_t") or 1
    patch = (frames, side, side)
    bias, ofs = given.get("attention_bias", True), given.get("ofs_embed_dim") or 0
    affine = given.get("norm_elementwise_affine", True)
    parts = [
        *linear(
            "patch_embed.proj",
            channels * math.prod(patch),
            width,
            1,
            bool(given.get("patch_size_t")) or given.get("patch_bias", True),
        ),
        *linear("patch_embed.text_proj", text, width),
        *linear("time_embedding.linear_1", width, time),
        *linear("time_embedding.linear_2", time, time),
        *linear("transformer_blocks.attn1.to_out.0", width, width, layers),
        *linear("transformer_blocks.ff.net.0.proj", width, 4 * width, layers),
        *linear("transformer_blocks.ff.net.2", 4 * width, width, layers),
        *linear("norm_out.linear", time, 2 * width),
        *linear("proj_out", width, out * math.prod(patch)),
    ]
    for part in ("to_q", "to_k", "to_v"):
        parts.extend(linear(f"transformer_blocks.attn1.{part}", width, width, layers, bias))
    for part in ("norm_q", "norm_k"):
        parts.extend(norm(f"transformer_blocks.attn1.{part}", head, layers))
    for part in ("norm1", "norm2"):
        parts.extend(linear(f"transformer_blocks.{part}.linear", time, 6 * width, layers))
        parts.extend(norm(f"transformer_blocks.{part}.norm", width, layers) if affine else ())
    if affine:
        parts.extend((*norm("norm_final", width), *norm("norm_out.norm", width)))
    if ofs:
        parts.extend(
            (*linear("ofs_embedding.linear_1", ofs, ofs), *linear("ofs_embedding.linear_2", ofs, ofs))
        )
    return Architecture(
        "cogvideox", width, heads, 4 * width, layers, channels, out, patch, text, 0, tuple(parts)
    )
