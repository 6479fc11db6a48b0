"""ComfyUI's names against what diffusers' own readers make of them, and against ComfyUI's own modules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel, WanPipeline, WanTransformer3DModel
from safetensors.torch import save_file

from data_prep.records import InputError
from pipeline.exports import comfyui
from tests.tiny_transformers import (
    COGVIDEOX_5B,
    COGVIDEOX_5B_I2V,
    COGVIDEOX_15_I2V,
    WAN_FLF2V,
    WAN_I2V,
    WAN_T2V,
)

Tensors = Mapping[str, torch.Tensor]
WAN, COGVIDEOX = "WanTransformer3DModel", "CogVideoXTransformer3DModel"


def largest_difference(a: Tensors, b: Tensors) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


def lora_of(transformer: torch.nn.Module, rank: int = 3) -> dict[str, torch.Tensor]:
    """A random LoRA on every linear layer."""
    generator = torch.Generator().manual_seed(3)
    found = {}
    for name, module in transformer.named_modules():
        if isinstance(module, torch.nn.Linear):
            found[f"{name}.lora_A.weight"] = torch.randn(rank, module.in_features, generator=generator)
            found[f"{name}.lora_B.weight"] = torch.randn(module.out_features, rank, generator=generator)
    return found


@pytest.mark.parametrize("config", [WAN_T2V, WAN_I2V], ids=["t2v", "i2v"])
def test_diffusers_reads_a_wan_file_back_without_difference(config: dict[str, Any], tmp_path: Path) -> None:
    transformer = WanTransformer3DModel(**config)
    named = comfyui.transformer_names(WAN, transformer.state_dict())
    save_file(named, tmp_path / "wan.safetensors")
    transformer.save_config(tmp_path / "config")
    read = WanTransformer3DModel.from_single_file(
        str(tmp_path / "wan.safetensors"), config=str(tmp_path / "config")
    )
    assert largest_difference(read.state_dict(), transformer.state_dict()) == 0


def test_wan_names_are_those_of_the_original_release() -> None:
    names = comfyui.transformer_names(WAN, WanTransformer3DModel(**WAN_FLF2V).state_dict()).keys()
    assert {name for name in names if not name.startswith("blocks.1.")} == wan_modules()


def wan_modules() -> set[str]:
    """All parameters of WanModel (comfy/ldm/wan/model.py) for first and last frame, with one block."""

    def linear(*layers: str) -> set[str]:
        return {f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")}

    attention = linear(*(f"blocks.0.{a}.{x}" for a in ("self_attn", "cross_attn") for x in "qkvo"))
    attention |= linear("blocks.0.cross_attn.k_img", "blocks.0.cross_attn.v_img")
    attention |= {f"blocks.0.{a}.norm_{x}.weight" for a in ("self_attn", "cross_attn") for x in "qk"}
    attention |= {"blocks.0.cross_attn.norm_k_img.weight", "blocks.0.modulation"}
    block = attention | linear("blocks.0.ffn.0", "blocks.0.ffn.2", "blocks.0.norm3")
    ends = linear("patch_embedding", "text_embedding.0", "text_embedding.2", "time_embedding.0")
    ends |= linear(
        "time_embedding.2", "time_projection.1", "head.head", *(f"img_emb.proj.{k}" for k in (0, 1, 3, 4))
    )
    return block | ends | {"head.modulation", "img_emb.emb_pos"}


@pytest.mark.parametrize("config", [WAN_T2V, WAN_I2V], ids=["t2v", "i2v"])
def test_diffusers_reads_a_wan_lora_back_without_difference(config: dict[str, Any], tmp_path: Path) -> None:
    lora = lora_of(WanTransformer3DModel(**config))
    named = comfyui.lora_names(WAN, lora, alpha=3.0)  # the rank: nothing is multiplied
    assert len(named) == len(lora) + sum("blocks." in name for name in lora) // 2
    save_file(named, tmp_path / "lora.safetensors")
    read = WanPipeline.lora_state_dict(tmp_path / "lora.safetensors")
    assert largest_difference(read, {f"transformer.{name}": value for name, value in lora.items()}) == 0


@pytest.mark.parametrize(("rank", "alpha"), [(4, 8.0), (3, 7.0), (8, 1.0)])
def test_alpha_arrives_at_diffusers_and_at_comfyui(rank: int, alpha: float) -> None:
    transformer = WanTransformer3DModel(**WAN_T2V)
    lora = lora_of(transformer, rank)
    named = comfyui.lora_names(WAN, lora, alpha)
    updates = {
        name[: -len(".lora_A.weight")]: alpha
        / rank
        * lora[name.replace("_A.", "_B.")].double()
        @ lora[name].double()
        for name in lora
        if "_A." in name
    }
    read = WanPipeline.lora_state_dict(
        {name: value.clone() for name, value in named.items()}
    )  # it scales in place
    for layer, update in updates.items():
        at = f"transformer.{layer}.lora_"
        theirs = read[f"{at}B.weight"].double() @ read[f"{at}A.weight"].double()
        torch.testing.assert_close(theirs, update, rtol=1e-6, atol=1e-5)
    weights = comfyui.transformer_names(WAN, transformer.state_dict())
    patched = as_comfyui_adds_it(weights, named)
    expected = {name: value.double() for name, value in transformer.state_dict().items()}
    for layer, update in updates.items():
        expected[f"{layer}.weight"] += update
    assert largest_difference(patched, comfyui.transformer_names(WAN, expected)) < 1e-5


def as_comfyui_adds_it(weights: Tensors, lora: Tensors) -> dict[str, torch.Tensor]:
    """What comfy/lora.py and comfy/weight_adapter/lora.py do with a file, in plain words; all keys must be used."""
    patched, used = {name: value.double() for name, value in weights.items()}, set()
    for name in weights:
        key = f"diffusion_model.{name.removesuffix('.weight')}"
        if name.endswith(".weight") and f"{key}.lora_up.weight" in lora:
            up, down = lora[f"{key}.lora_up.weight"].double(), lora[f"{key}.lora_down.weight"].double()
            used |= {f"{key}.lora_up.weight", f"{key}.lora_down.weight", f"{key}.alpha"}
            scale = lora[f"{key}.alpha"].item() / down.shape[0] if f"{key}.alpha" in lora else 1.0
            patched[name] = patched[name] + scale * (up @ down)
    assert lora.keys() <= used
    return patched


@pytest.mark.parametrize("config", [COGVIDEOX_5B_I2V, COGVIDEOX_15_I2V], ids=["5b-i2v", "1.5-i2v"])
def test_cogvideox_names_are_those_of_comfyui(config: dict[str, Any]) -> None:
    state = CogVideoXTransformer3DModel(**config).state_dict()
    named = comfyui.transformer_names(COGVIDEOX, state)
    assert {re.sub(r"blocks\.\d+", "blocks.0", name) for name in named} == cogvideox_modules(config)
    assert largest_difference(comfyui.diffusers_names(COGVIDEOX, named), state) == 0


def cogvideox_modules(config: dict[str, Any]) -> set[str]:
    """All parameters of CogVideoXTransformer3DModel (comfy/ldm/cogvideo/model.py), with one block."""
    layers = [f"blocks.0.{x}" for x in ("q", "k", "v", "norm_q", "norm_k", "attn_out", "ff_proj", "ff_out")]
    layers += [f"blocks.0.norm{k}.{x}" for k in (1, 2) for x in ("linear", "norm")]
    layers += [
        "patch_embed.proj",
        "patch_embed.text_proj",
        "time_embedding_linear_1",
        "time_embedding_linear_2",
    ]
    layers += ["norm_final", "norm_out.linear", "norm_out.norm", "proj_out"]
    if config.get("ofs_embed_dim"):
        layers += ["ofs_embedding_linear_1", "ofs_embedding_linear_2"]
    learned = {"patch_embed.pos_embedding"} if config.get("use_learned_positional_embeddings") else set()
    return {f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")} | learned


def test_a_cogvideox_lora_changes_what_comfyui_would_change() -> None:
    transformer = CogVideoXTransformer3DModel(**COGVIDEOX_5B)
    lora = {name: value for name, value in lora_of(transformer).items() if ".attn1." in name}
    weights = comfyui.transformer_names(COGVIDEOX, transformer.state_dict())
    patched = as_comfyui_adds_it(weights, comfyui.lora_names(COGVIDEOX, lora, alpha=7.0))
    at = "transformer_blocks.1.attn1.to_out.0"
    update = 7 / 3 * lora[f"{at}.lora_B.weight"].double() @ lora[f"{at}.lora_A.weight"].double()
    changed = transformer.state_dict()[f"{at}.weight"].double() + update
    torch.testing.assert_close(patched["blocks.1.attn_out.weight"], changed, rtol=0, atol=1e-12)


def test_what_has_no_name_there_is_said() -> None:
    tensor = torch.zeros(2, 2)
    with pytest.raises(InputError, match=r"LTXTransformer.*known for WanTransformer3DModel"):
        comfyui.transformer_names("LTXTransformer", {"proj.weight": tensor})
    with pytest.raises(InputError, match=r"blocks\.3\.strange.*--to diffusers"):
        comfyui.transformer_names(WAN, {"blocks.3.strange.weight": tensor})
    with pytest.raises(InputError, match="only A and B"):
        comfyui.lora_names(WAN, {"blocks.3.attn1.to_q.lora_magnitude_vector": tensor}, 1.0)


def test_a_shape_that_comfyui_cannot_run_is_said() -> None:
    published = {"patch_size": [1, 2, 2], "attention_head_dim": 128, "freq_dim": 256}
    assert comfyui.limits(WAN, published) == ""
    assert "attention_head_dim 48 (there 128)" in comfyui.limits(WAN, published | {"attention_head_dim": 48})
