"""Wan models of a few thousand random parameters on disk, in the published layouts, written by diffusers itself.

The autoencoders keep what the family reads of them (grouping of frames, 8 or 16 pixels per cell, patches,
statistics per channel), the text encoder is a UMT5 with a real Unigram tokenizer, the image encoder a CLIP.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from pipeline.config import FamilyConfig, WanConfig

Published = Literal["t2v", "i2v", "ti2v", "t2v-a14b", "i2v-a14b"]
Folder = Callable[[Published], Path]
CHANNELS, TEXT_WIDTH, PICTURE_WIDTH = 4, 16, 12
BOUNDARY = 0.875
WORDS = ("anna", "ben", "carla", "is", "a", "the", "talks", "to", "and", "in", "garden", "man", "walks")


def make_wan(folder: Path, kind: Published) -> Path:
    """Saves a whole model, by diffusers' own save_pretrained, and returns its folder."""
    from diffusers import UniPCMultistepScheduler, WanImageToVideoPipeline, WanPipeline

    torch.manual_seed(11)
    pictured, experts = kind.startswith("i2v"), kind.endswith("a14b")
    clip = kind == "i2v"
    parts: dict[str, Any] = {
        "tokenizer": tokenizer(),
        "text_encoder": text_encoder(),
        "vae": codec(residual=kind == "ti2v"),
        "scheduler": UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        "transformer": transformer(pictured, clip),
        "transformer_2": transformer(pictured, clip) if experts else None,
        "boundary_ratio": BOUNDARY if experts else None,
        "expand_timesteps": kind == "ti2v",
    }
    if clip:
        parts |= {"image_encoder": image_encoder(), "image_processor": image_processor()}
    pipeline = (WanImageToVideoPipeline if pictured else WanPipeline)(**parts)
    pipeline.save_pretrained(folder)
    if clip:  # the class that published models name; there it is read by Pillow
        index = json.loads((folder / "model_index.json").read_text())
        index["image_processor"] = ["transformers", "CLIPImageProcessor"]
        (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    return folder


def config_of(folder: Path, **changes: Any) -> FamilyConfig:
    """The configuration that reads it."""
    values = {"pretrained": str(folder), "text_tokens": 24, "frozen_dtype": "fp32"} | changes
    return FamilyConfig(name="wan", wan=WanConfig(**values))


def transformer(pictured: bool, clip: bool) -> Any:
    """Two blocks 48 wide: 12 of a head's 16 numbers turn with the place, as in the real ones."""
    from diffusers import WanTransformer3DModel

    extra = {"image_dim": PICTURE_WIDTH, "added_kv_proj_dim": 48} if clip else {}
    made = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=3,
        attention_head_dim=16,
        in_channels=2 * CHANNELS + 4 if pictured else CHANNELS,
        out_channels=CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=32,
        ffn_dim=64,
        num_layers=2,
        rope_max_seq_len=64,
        **extra,
    )
    torch.nn.init.normal_(made.proj_out.weight, std=0.1)
    return made


def codec(residual: bool) -> Any:
    """As Wan 2.1's (8 pixels per cell), or Wan 2.2's 5B (residual, patches of 2, 16 pixels per cell)."""
    from diffusers import AutoencoderKLWan

    more: dict[str, Any] = {}
    if residual:
        more = {
            "is_residual": True,
            "patch_size": 2,
            "in_channels": 12,
            "out_channels": 12,
            "scale_factor_spatial": 16,
        }
    return AutoencoderKLWan(
        base_dim=8,
        decoder_base_dim=8,
        z_dim=CHANNELS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1, -0.2, 0.05, 0.3],
        latents_std=[0.5, 0.7, 0.9, 1.3],
        **more,
    )


def tokenizer() -> Any:
    """A Unigram model over a few words, wrapped as the published ones are."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import T5TokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz.,-0123456789"
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), ("▁", -3.0)]
    pieces += [(f"▁{word}", -4.0) for word in WORDS] + [(letter, -9.0) for letter in letters]
    model = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    model.pre_tokenizer = pre_tokenizers.Metaspace()
    model.decoder = decoders.Metaspace()
    model.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return T5TokenizerFast(
        tokenizer_object=model, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", extra_ids=0
    )


def text_encoder() -> Any:
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=128, d_model=TEXT_WIDTH, d_kv=8, d_ff=32, num_layers=2, num_heads=2, dropout_rate=0.1
    )
    return UMT5EncoderModel(config)


def image_encoder() -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=PICTURE_WIDTH,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    return CLIPVisionModel(config)


def image_processor() -> Any:
    from transformers import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
