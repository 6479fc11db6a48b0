"""Operations by formula against PyTorch's own counter on the classes themselves, without computing anything."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config import AdapterConfig, EngineConfig, IdentityConfig
from pipeline.memory.activations import Tokens
from pipeline.memory.operations import expected, forward_operations, passes
from pipeline.memory.plan import Beside, Training
from pipeline.memory.weights import architecture

WAN = {"num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 40, "num_layers": 3, "text_dim": 10}
COGVIDEOX = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 3, "text_embed_dim": 10}
COGVIDEOX |= {"use_rotary_positional_embeddings": True, "max_text_seq_length": 7}
TEXT = 7


def _training(class_name: str, arguments: dict[str, int], visual: int) -> Training:
    return Training(
        arch=architecture(class_name, arguments),
        tokens=Tokens(1, visual, TEXT),
        beside=Beside(0, 0),
        adapter=AdapterConfig(),
        identity=None,
        engine=EngineConfig(),
        gpus=1,
        checkpointing=False,
    )


def test_a_wan() -> None:
    import diffusers

    with torch.device("meta"):
        made = diffusers.WanTransformer3DModel(**WAN)
        with FlopCounterMode(display=False) as counter:
            made(torch.zeros(1, 16, 3, 8, 12), torch.zeros(1, dtype=torch.long), torch.zeros(1, TEXT, 10))
    ours = forward_operations(_training("WanTransformer3DModel", WAN, 3 * 4 * 6))
    assert ours == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_a_cogvideox() -> None:
    import diffusers

    rotary = (torch.zeros(3 * 4 * 6, 16, device="meta"), torch.zeros(3 * 4 * 6, 16, device="meta"))
    with torch.device("meta"):
        made = diffusers.CogVideoXTransformer3DModel(**COGVIDEOX)
        with FlopCounterMode(display=False) as counter:
            made(
                torch.zeros(1, 3, 16, 8, 12),
                torch.zeros(1, TEXT, 10),
                torch.zeros(1, dtype=torch.long),
                image_rotary_emb=rotary,
            )
    ours = forward_operations(_training("CogVideoXTransformer3DModel", COGVIDEOX, 3 * 4 * 6))
    assert ours == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_identity_costs_what_its_products_take() -> None:
    """One block, one character of 3 tokens and the separator, width 24 and token width 12, 5 visual tokens."""
    plain = _training("WanTransformer3DModel", WAN | {"num_layers": 1}, 5)
    network = IdentityConfig(tokens_per_character=3, width=12, num_heads=2)
    known = replace(plain, identity=network, tokens=replace(plain.tokens, cast=1))
    products = 2 * (2 * 5 * 24 * 24) + 2 * (2 * 4 * 12 * 24) + 4 * 5 * 4 * 24
    assert forward_operations(known) - forward_operations(plain) == products


def test_hours_are_operations_by_the_peak() -> None:
    training = _training("WanTransformer3DModel", WAN, 72)
    cost = expected(training, 10, 4, 0.5)
    assert cost.total == 3 * forward_operations(training) * 40
    assert cost.gpu_hours["A100"] == pytest.approx(cost.total / 156e12 / 3600)


def test_a_lora_leaves_out_the_gradient_of_frozen_weights() -> None:
    training = _training("WanTransformer3DModel", WAN, 72)
    assert passes(training) == 3
    assert passes(replace(training, checkpointing=True)) == 4
    assert passes(replace(training, adapter=AdapterConfig(kind="lora"))) == 2
