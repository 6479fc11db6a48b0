"""Whole pipelines of diffusers from random parts, as small as they can be: what tests of export ask."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    FlowMatchEulerDiscreteScheduler,
    WanPipeline,
)

TEXT_DIM = 32


def wan_pipeline(transformer: torch.nn.Module, transformer_2: torch.nn.Module | None = None) -> Any:
    """Wan 2.1, or 2.2 with its two experts; text of TEXT_DIM, latents of 16 channels."""
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(1)
    return WanPipeline(
        tokenizer=_tokenizer(),
        text_encoder=UMT5EncoderModel(UMT5Config(**_text())).eval(),
        vae=AutoencoderKLWan(base_dim=3, dim_mult=[1, 1, 1, 1], num_res_blocks=1).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        transformer=transformer.eval(),
        transformer_2=transformer_2,
        boundary_ratio=None if transformer_2 is None else 0.9,
    )


def cogvideox_pipeline(transformer: torch.nn.Module) -> Any:
    """CogVideoX; text of TEXT_DIM, latents of 4 channels."""
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(1)
    vae = AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2
    )
    return CogVideoXPipeline(
        tokenizer=_tokenizer(),
        text_encoder=T5EncoderModel(T5Config(**_text())).eval(),
        vae=vae.eval(),
        scheduler=CogVideoXDDIMScheduler(),
        transformer=transformer.eval(),
    )


def video(pipeline: Any, **settings: Any) -> torch.Tensor:
    """f32[1,T,3,H,W] in [0,1] that a pipeline draws, always of the same noise."""
    pipeline.set_progress_bar_config(disable=True)
    asked = {"num_frames": 9, "height": 16, "width": 16, "num_inference_steps": 2, "max_sequence_length": 16}
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        drawn = pipeline("anna talks to ben", generator=noise, output_type="pt", **asked, **settings)
    frames: torch.Tensor = drawn.frames
    return frames


def _text() -> dict[str, Any]:
    return {"vocab_size": 64, "d_model": TEXT_DIM, "d_kv": 8, "d_ff": 37, "num_layers": 1, "num_heads": 2}


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", "anna", "talks", "to", "ben"]
    model = models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
