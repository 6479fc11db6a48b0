"""The names that ComfyUI gives to the tensors of a transformer and of a LoRA, from those of diffusers.

ComfyUI knows models by the names of their original releases (comfy/ldm/wan/model.py, comfy/ldm/cogvideo/model.py)
and finds a LoRA's layer as ``diffusion_model.`` and the layer's name (comfy/lora.py, model_lora_keys_unet). It adds
``alpha / rank * up @ down``, and without an alpha ``up @ down`` (comfy/weight_adapter/lora.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from data_prep.records import InputError

LORA_PREFIX = "diffusion_model."
BLOCK = re.compile(r"(?<=blocks\.)\d+(?=\.)")  # the number of a block, # in the tables below

_WAN_ATTENTION = {
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "o",
    "norm_q": "norm_q",
    "norm_k": "norm_k",
    "add_k_proj": "k_img",
    "add_v_proj": "v_img",
    "norm_added_k": "norm_k_img",
}
_WAN = {
    "patch_embedding": "patch_embedding",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.image_embedder.norm1": "img_emb.proj.0",
    "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
    "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
    "condition_embedder.image_embedder.norm2": "img_emb.proj.4",
    "condition_embedder.image_embedder.pos_embed": "img_emb.emb_pos",
    **{f"blocks.#.attn1.{ours}": f"blocks.#.self_attn.{theirs}" for ours, theirs in _WAN_ATTENTION.items()},
    **{f"blocks.#.attn2.{ours}": f"blocks.#.cross_attn.{theirs}" for ours, theirs in _WAN_ATTENTION.items()},
    "blocks.#.norm2": "blocks.#.norm3",  # counted in another order there
    "blocks.#.ffn.net.0.proj": "blocks.#.ffn.0",
    "blocks.#.ffn.net.2": "blocks.#.ffn.2",
    "blocks.#.scale_shift_table": "blocks.#.modulation",
    "scale_shift_table": "head.modulation",
    "proj_out": "head.head",
}
_COGVIDEOX = {
    "patch_embed.proj": "patch_embed.proj",
    "patch_embed.text_proj": "patch_embed.text_proj",
    "patch_embed.pos_embedding": "patch_embed.pos_embedding",
    "time_embedding.linear_1": "time_embedding_linear_1",
    "time_embedding.linear_2": "time_embedding_linear_2",
    "ofs_embedding.linear_1": "ofs_embedding_linear_1",
    "ofs_embedding.linear_2": "ofs_embedding_linear_2",
    "transformer_blocks.#.norm1.linear": "blocks.#.norm1.linear",
    "transformer_blocks.#.norm1.norm": "blocks.#.norm1.norm",
    "transformer_blocks.#.norm2.linear": "blocks.#.norm2.linear",
    "transformer_blocks.#.norm2.norm": "blocks.#.norm2.norm",
    "transformer_blocks.#.attn1.to_q": "blocks.#.q",
    "transformer_blocks.#.attn1.to_k": "blocks.#.k",
    "transformer_blocks.#.attn1.to_v": "blocks.#.v",
    "transformer_blocks.#.attn1.to_out.0": "blocks.#.attn_out",
    "transformer_blocks.#.attn1.norm_q": "blocks.#.norm_q",
    "transformer_blocks.#.attn1.norm_k": "blocks.#.norm_k",
    "transformer_blocks.#.ff.net.0.proj": "blocks.#.ff_proj",
    "transformer_blocks.#.ff.net.2": "blocks.#.ff_out",
    "norm_final": "norm_final",
    "norm_out.linear": "norm_out.linear",
    "norm_out.norm": "norm_out.norm",
    "proj_out": "proj_out",
}
LAYERS: Mapping[str, Mapping[str, str]] = {
    "WanTransformer3DModel": _WAN,
    "CogVideoXTransformer3DModel": _COGVIDEOX,
}
"""diffusers' class → its layers, and parameters outside of layers → their names in ComfyUI."""
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "WanTransformer3DModel": {"patch_size": (1, 2, 2), "attention_head_dim": 128, "freq_dim": 256},
    "CogVideoXTransformer3DModel": {"patch_size": 2, "attention_head_dim": 64},
}
"""What ComfyUI does not read from the weights but knows of the published models (comfy/model_detection.py)."""


def transformer_names(kind: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All weights of a transformer under ComfyUI's names, for its models/diffusion_models.

    Args:
        kind: diffusers' class, a key of ``LAYERS``.
        tensors: the transformer's state, without LoRA.

    Raises:
        InputError: ComfyUI's names are not known for the class, or for one of the tensors.
    """
    return {_renamed(kind, name): value for name, value in tensors.items()}


def lora_names(kind: str, tensors: Mapping[str, torch.Tensor], alpha: float) -> dict[str, torch.Tensor]:
    """A LoRA under ComfyUI's names, for its models/loras.

    Layers in blocks carry their alpha. Those outside of blocks are written without one, and ``alpha / rank`` is
    multiplied into their up matrix: diffusers' own reader of these files refuses an alpha there.

    Args:
        kind: diffusers' class, a key of ``LAYERS``.
        tensors: ``LAYER.lora_A.weight`` [rank, in] and ``LAYER.lora_B.weight`` [out, rank] by diffusers' names.
        alpha: of every layer.

    Raises:
        InputError: as ``transformer_names``; or a tensor that is not one of a LoRA's two matrices.
    """
    found: dict[str, torch.Tensor] = {}
    for name, value in stored(tensors, alpha).items():
        layer, _, which = name.rpartition(".lora_")
        if which not in ("A.weight", "B.weight"):
            raise InputError(
                f"LoRA: {name!r} has no name in ComfyUI; only A and B matrices do, train without"
            )
        target = LORA_PREFIX + _known(kind, layer)
        found[f"{target}.lora_{'down' if which == 'A.weight' else 'up'}.weight"] = value
        if BLOCK.search(layer):
            found[f"{target}.alpha"] = torch.tensor(float(alpha))
    return found


def stored(tensors: Mapping[str, torch.Tensor], alpha: float) -> dict[str, torch.Tensor]:
    """The matrices of ``lora_names`` as they are written, by diffusers' names: up matrices outside of blocks carry
    ``alpha / rank``."""
    return {
        name: value * (alpha / value.shape[1]) if "lora_B" in name and not BLOCK.search(name) else value
        for name, value in tensors.items()
    }


def kind_of(layers: Iterable[str]) -> str:
    """The class that all these layers, by diffusers' names, are of; raises InputError where none is known."""
    wanted = {BLOCK.sub("#", layer, count=1) for layer in layers}
    for kind, table in LAYERS.items():
        if wanted <= table.keys():
            return kind
    raise InputError(
        f"ComfyUI's names are known for {', '.join(LAYERS)}, and {sorted(wanted)[:3]} are not all of one of them; "
        "use --to diffusers or --to peft"
    )


def without_alphas(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The matrices of a LoRA file of ComfyUI alone."""
    return {name: value for name, value in tensors.items() if not name.endswith(".alpha")}


def diffusers_names(kind: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The way back, by the same table: a transformer's weights, or a LoRA's matrices without alphas."""
    back = {theirs: ours for ours, theirs in _table(kind).items()}
    found = {}
    for name, value in tensors.items():
        layer, leaf = _split(name.removeprefix(LORA_PREFIX))
        for theirs, ours in ((".lora_down", ".lora_A"), (".lora_up", ".lora_B")):
            if layer.endswith(theirs):
                layer, leaf = layer.removesuffix(theirs), ours + leaf
        number = BLOCK.search(layer)
        found[_numbered(back[BLOCK.sub("#", layer, count=1)], number) + leaf] = value
    return found


def limits(kind: str, config: Mapping[str, Any]) -> str:
    """Why ComfyUI cannot run a transformer of this shape although its names fit; empty where it can."""
    fixed = SHAPES[kind]
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
    other = [f"{key} {plain[key]} (there {value})" for key, value in fixed.items() if plain[key] != value]
    return f"ComfyUI has no model of this shape: {', '.join(other)}" if other else ""


def _renamed(kind: str, name: str) -> str:
    layer, leaf = _split(name)
    return _known(kind, layer) + leaf


def _split(name: str) -> tuple[str, str]:
    """A tensor's layer and what is behind it; a parameter outside of layers has nothing behind it."""
    layer, dot, leaf = name.rpartition(".")
    return (layer, dot + leaf) if leaf in ("weight", "bias") else (name, "")


def _known(kind: str, layer: str) -> str:
    number = BLOCK.search(layer)
    theirs = _table(kind).get(BLOCK.sub("#", layer, count=1))
    if theirs is None:
        raise InputError(f"{kind}: the layer {layer!r} has no name in ComfyUI; write it with --to diffusers")
    return _numbered(theirs, number)


def _numbered(layer: str, number: re.Match[str] | None) -> str:
    return layer.replace("#", number[0]) if number else layer


def _table(kind: str) -> Mapping[str, str]:
    if kind not in LAYERS:
        raise InputError(
            f"{kind}: ComfyUI's names are known for {', '.join(LAYERS)}; write it with --to diffusers"
        )
    return LAYERS[kind]
