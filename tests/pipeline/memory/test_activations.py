"""What blocks of diffusers really save for backward, counted tensor by tensor, against the formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pipeline.config import IdentityConfig
from pipeline.memory import activations as planned
from pipeline.memory.activations import Tokens, Trained, numbers
from pipeline.memory.weights import architecture

HEADS, HEAD, FFN, VISUAL, TEXT = 4, 32, 320, 60, 10
WIDTH = HEADS * HEAD
ATTENTIONS = ("to_q", "to_k", "to_v", "to_out.0")
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
KINDS = {"full": Trained(True), "lora": Trained(False, ATTENTIONS, 6), "frozen": Trained(False)}
IDENTITY = IdentityConfig(tokens_per_character=4, width=16, num_heads=4)


def saved_bytes(run: Callable[[], Any], module: torch.nn.Module) -> int:
    """Bytes of all storages that autograd keeps, each once, without those of parameters and buffers."""
    own = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers())}
    kept: dict[int, torch.Tensor] = {}  # a reference to each, so that no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in own:
            kept[address] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = run()
    del output
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def prepared(block: torch.nn.Module, kind: str, dtype: str) -> torch.nn.Module:
    if kind != "full":
        block.requires_grad_(False)
    if kind == "lora":
        from peft import LoraConfig, inject_adapter_in_model

        block = inject_adapter_in_model(LoraConfig(r=6, target_modules=list(ATTENTIONS)), block)
    return block.to(TYPES[dtype])


def autocast(dtype: str) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", ["text", "image", "per-token"])
def test_a_block_of_wan(dtype: str, kind: str, variant: str) -> None:
    from diffusers.models.transformers.transformer_wan import WanTransformerBlock

    torch.manual_seed(0)
    image, text = (7, 512) if variant == "image" else (0, TEXT)  # diffusers takes the last 512 for text
    added = WIDTH if image else None
    block = prepared(
        WanTransformerBlock(WIDTH, FFN, HEADS, cross_attn_norm=True, added_kv_proj_dim=added), kind, dtype
    )
    learns = kind == "full"
    x = torch.randn(1, VISUAL, WIDTH, dtype=TYPES[dtype], requires_grad=True)
    context = torch.randn(1, image + text, WIDTH, dtype=TYPES[dtype], requires_grad=learns)
    per_token = variant == "per-token"
    shape = (1, VISUAL, 6, WIDTH) if per_token else (1, 6, WIDTH)
    modulation = torch.randn(shape, dtype=TYPES[dtype], requires_grad=learns)
    positions = (torch.randn(1, VISUAL, 1, HEAD), torch.randn(1, VISUAL, 1, HEAD))
    with autocast(dtype):
        counted = saved_bytes(lambda: block(x, context, modulation, positions), block)
    # positions and text are there once for all blocks: planned among the ends
    counted -= 2 * 4 * VISUAL * HEAD
    counted -= context.nbytes if kind != "frozen" else 0
    arguments = {"num_attention_heads": HEADS, "attention_head_dim": HEAD, "ffn_dim": FFN, "num_layers": 1}
    arch = architecture("WanTransformer3DModel", arguments | {"added_kv_proj_dim": added})
    tokens = Tokens(1, VISUAL, text, image, per_token)
    parts = planned._wan(arch, tokens, KINDS[kind], numbers(dtype, "cpu"))  # type: ignore[arg-type]
    assert sum(parts.values()) == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_block_of_cogvideox(dtype: str, kind: str) -> None:
    from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock

    torch.manual_seed(0)
    block = prepared(CogVideoXBlock(WIDTH, HEADS, HEAD, 48, attention_bias=True), kind, dtype)
    x = torch.randn(1, VISUAL, WIDTH, dtype=TYPES[dtype], requires_grad=True)
    text = torch.randn(1, TEXT, WIDTH, dtype=TYPES[dtype], requires_grad=True)
    time = torch.randn(1, 48, dtype=TYPES[dtype], requires_grad=kind == "full")
    positions = (torch.randn(VISUAL, HEAD), torch.randn(VISUAL, HEAD))
    with autocast(dtype):
        counted = saved_bytes(lambda: block(x, text, time, positions), block) - 2 * 4 * VISUAL * HEAD
    arguments = {"num_attention_heads": HEADS, "attention_head_dim": HEAD, "num_layers": 1}
    arch = architecture("CogVideoXTransformer3DModel", arguments)
    parts = planned._cogvideox(arch, Tokens(1, VISUAL, TEXT), KINDS[kind], numbers(dtype, "cpu"))  # type: ignore[arg-type]
    assert sum(parts.values()) == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize("dtype", TYPES)
def test_an_identity_attention(dtype: str) -> None:
    from pipeline.identity.attention import CastContext, IdentityAttention

    attention = IdentityAttention(WIDTH, IDENTITY.width, IDENTITY.num_heads).to(TYPES[dtype])
    x = torch.randn(1, VISUAL, WIDTH, dtype=TYPES[dtype], requires_grad=True)
    tokens = torch.randn(1, 3, IDENTITY.tokens_per_character + 1, IDENTITY.width, requires_grad=True)
    context = CastContext(tokens, torch.ones(1, 3, dtype=torch.bool), torch.ones(1))
    with autocast(dtype):
        counted = saved_bytes(lambda: attention(x, context), attention)
    arguments = {"num_attention_heads": HEADS, "attention_head_dim": HEAD}
    arch = architecture("WanTransformer3DModel", arguments)
    parts = planned.identity_attention(arch, Tokens(1, VISUAL, TEXT, cast=3), numbers(dtype, "cpu"), IDENTITY)  # type: ignore[arg-type]
    assert sum(parts.values()) == pytest.approx(counted, rel=0.05)
