"""Weights by formula against the classes themselves, and against a published count."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from data_prep.records import InputError
from pipeline.config import IdentityConfig
from pipeline.families.published import MODELS
from pipeline.memory.weights import architecture, identity, lora

WAN = {"num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 40, "num_layers": 3, "text_dim": 10}
COGVIDEOX = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 3, "text_embed_dim": 10}
ATTENTIONS = ("to_q", "to_k", "to_v", "to_out.0")
CASES: list[tuple[str, dict[str, Any]]] = [
    ("WanTransformer3DModel", WAN),
    ("WanTransformer3DModel", WAN | {"image_dim": 14, "added_kv_proj_dim": 24, "cross_attn_norm": False}),
    ("CogVideoXTransformer3DModel", COGVIDEOX | {"time_embed_dim": 20}),
    ("CogVideoXTransformer3DModel", COGVIDEOX | {"patch_size_t": 2, "patch_bias": False, "ofs_embed_dim": 8}),
]


@pytest.mark.parametrize(("class_name", "arguments"), CASES)
def test_every_shape_is_the_class_own(class_name: str, arguments: dict[str, Any]) -> None:
    import diffusers

    with torch.device("meta"):
        made = getattr(diffusers, class_name)(**arguments)
    ours = [w.numel for w in architecture(class_name, arguments).weights for _ in range(w.copies)]
    assert sorted(ours) == sorted(p.numel() for p in made.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_published_models(name: str) -> None:
    model = MODELS[name]
    assert architecture(model.class_name, model.transformer).num_parameters == model.num_parameters


def test_lora_as_finetrainers_counts_it() -> None:
    """docs/training/cogvideox.md: rank 128 on CogVideoX-5b has 132120576 trainable parameters."""
    model = MODELS["cogvideox-5b"]
    added = lora(architecture(model.class_name, model.transformer).weights, ATTENTIONS, 128)
    assert sum(w.numel * w.copies for w in added) == 132_120_576


def test_lora_as_peft_injects_it() -> None:
    from diffusers import WanTransformer3DModel
    from peft import LoraConfig

    targets = ("to_q", "ffn.net.0.proj")
    made = WanTransformer3DModel(**WAN)
    made.requires_grad_(False)
    made.add_adapter(LoraConfig(r=3, target_modules=list(targets)))
    added = lora(architecture("WanTransformer3DModel", WAN).weights, targets, 3)
    trained = sum(p.numel() for p in made.parameters() if p.requires_grad)
    assert sum(w.numel * w.copies for w in added) == trained


def test_identity_modules() -> None:
    from pipeline.identity.network import IdentityNetwork

    config = IdentityConfig(embedding_dim=20, tokens_per_character=3, width=16, encoder_layers=2, every=2)
    sites = [torch.nn.Identity() for _ in range(5)]
    network = IdentityNetwork(config, sites, 24)
    ours = sum(w.numel * w.copies for w in identity(config, 24, 5))
    assert ours == sum(p.numel() for p in network.parameters())


def test_what_cannot_be_planned_is_said() -> None:
    with pytest.raises(InputError, match="'Flux' cannot be planned; known are Wan"):
        architecture("Flux", {})
    with pytest.raises(InputError, match=r"model\.adapter\.targets: qkv match no layer"):
        lora(architecture("WanTransformer3DModel", WAN).weights, ("qkv",), 4)
