"""The published models that can be fine-tuned, as one table: where each lies, its shape, what its authors use.

Plain data, importable without torch. ``transformer`` holds constructor arguments as in the published
``transformer/config.json``, which diffusers' scripts/convert_wan_to_diffusers.py and
scripts/convert_cogvideox_to_diffusers.py have written; what is left out has its default there. A size, frame count
or rate is the authors' own unless its comment names a trainer.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from data_prep.records import InputError


@dataclass(frozen=True)
class Codec:
    """A video autoencoder: its class in diffusers; source frames and pixels of a latent cell; latent channels;
    num_parameters: int, of the whole autoencoder."""

    class_name: str
    frames: int
    pixels: int
    channels: int
    num_parameters: int


@dataclass(frozen=True)
class TextEncoder:
    """A text encoder: its class in transformers; width and number of the embeddings; num_parameters: int."""

    class_name: str
    width: int
    tokens: int
    num_parameters: int


@dataclass(frozen=True)
class Rates:
    """Learning rates, with who gives them. full: of all weights; lora: of a LoRA of ``lora_rank``."""

    full: float
    lora: float
    lora_rank: int
    betas: tuple[float, float]
    weight_decay: float


@dataclass(frozen=True)
class PublishedModel:
    """One published model.

    hub: repository of the diffusers layout; family: a name in pipeline.families; class_name: the transformer's in
    diffusers; transformer: its constructor arguments; num_parameters: of one transformer; experts: transformers by
    noise level, the first for timesteps from ``boundary`` (share of the schedule, in [0,1]) up; image: whether it
    can be given a first frame; shift: of the noise levels (flow models; 1 is none); snr_shift: CogVideoX's
    division of the signal-to-noise ratio (1 is none).
    """

    hub: str
    family: Literal["wan", "cogvideox"]
    class_name: str
    transformer: Mapping[str, object]
    num_parameters: int
    codec: Codec
    text: TextEncoder
    num_frames: int
    height_px: int
    width_px: int
    fps: float
    rates: Rates
    shift: float = 1.0
    snr_shift: float = 1.0
    experts: int = 1
    boundary: float | None = None
    image: bool = False
    image_tokens: int = 0  # of a CLIP image encoder, beside the text tokens
    per_token_timesteps: bool = False  # the first frame may be given clean, at timestep 0


WAN_21_VAE = Codec("AutoencoderKLWan", 4, 8, 16, 126_892_531)
WAN_22_VAE = Codec("AutoencoderKLWan", 4, 16, 48, 704_688_668)  # residual blocks, patch 2
COGVIDEOX_VAE = Codec("AutoencoderKLCogVideoX", 4, 8, 16, 215_583_907)
UMT5_XXL = TextEncoder("UMT5EncoderModel", 4096, 512, 5_680_910_336)
# CogVideoX 1.5's card says 224 tokens, its published configuration 226
T5_XXL = TextEncoder("T5EncoderModel", 4096, 226, 4_762_310_656)

# Learning rates: DiffSynth-Studio, by the authors' own company, examples/wanvideo/model_training/{full,lora}/*.sh.
# Betas and decay: finetrainers, examples/training/sft/wan/crush_smol_lora/train.sh.
WAN_RATES = Rates(full=1e-5, lora=1e-4, lora_rank=32, betas=(0.9, 0.99), weight_decay=1e-4)
# LoRA: finetrainers, docs/training/cogvideox.md (3e-5, rank 128); full: ConsisID, trained on CogVideoX-5b.
COGVIDEOX_RATES = Rates(full=3e-6, lora=3e-5, lora_rank=128, betas=(0.9, 0.95), weight_decay=1e-4)


def _wan(
    heads: int, ffn: int, layers: int, channels: tuple[int, int], **more: object
) -> Mapping[str, object]:
    """Arguments of WanTransformer3DModel; channels: of input and output."""
    return MappingProxyType(
        {
            "patch_size": (1, 2, 2),
            "num_attention_heads": heads,
            "attention_head_dim": 128,
            "in_channels": channels[0],
            "out_channels": channels[1],
            "text_dim": 4096,
            "freq_dim": 256,
            "ffn_dim": ffn,
            "num_layers": layers,
            "cross_attn_norm": True,
            "qk_norm": "rms_norm_across_heads",
            "eps": 1e-6,
            **more,
        }
    )


def _cogvideox(heads: int, layers: int, channels: int, **more: object) -> Mapping[str, object]:
    """Arguments of CogVideoXTransformer3DModel; channels: of the input."""
    return MappingProxyType(
        {
            "num_attention_heads": heads,
            "attention_head_dim": 64,
            "in_channels": channels,
            "out_channels": 16,
            "time_embed_dim": 512,
            "text_embed_dim": 4096,
            "num_layers": layers,
            "attention_bias": True,
            "sample_width": 90,
            "sample_height": 60,
            "sample_frames": 49,
            "patch_size": 2,
            "temporal_compression_ratio": 4,
            "max_text_seq_length": 226,
            "spatial_interpolation_scale": 1.875,
            "use_rotary_positional_embeddings": True,
            **more,
        }
    )


WAN_14B = _wan(40, 13824, 40, (16, 16))
WAN_14B_IMAGE = _wan(40, 13824, 40, (36, 16), image_dim=1280, added_kv_proj_dim=5120)
WAN_14B_FIRST_FRAME = _wan(40, 13824, 40, (36, 16))  # 2.2: the first frame as channels only, without CLIP
# the published files first said 300 x 300 and now the size in latent cells; rotary positions are the same for both
COGVIDEOX_15 = MappingProxyType(
    {"patch_size_t": 2, "patch_bias": False, "sample_width": 170, "sample_height": 96, "sample_frames": 81}
)

# Sizes, frames and fps of Wan 2.1: the authors' generate.py, shared_config.py; shift: 3 for 480p, 5 for 720p
# (README of Wan2.1, documentation of diffusers' WanPipeline)
WAN_21_T2V_14B = PublishedModel(
    hub="Wan-AI/Wan2.1-T2V-14B-Diffusers",
    family="wan",
    class_name="WanTransformer3DModel",
    transformer=WAN_14B,
    num_parameters=14_288_491_584,
    codec=WAN_21_VAE,
    text=UMT5_XXL,
    num_frames=81,
    height_px=480,
    width_px=832,
    fps=16,
    rates=WAN_RATES,
    shift=3.0,
)
WAN_21_I2V_480P = replace(
    WAN_21_T2V_14B,
    hub="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
    transformer=WAN_14B_IMAGE,
    num_parameters=16_394_878_784,
    image=True,
    image_tokens=257,
)
# Wan 2.2: wan/configs/wan_{ti2v_5B,t2v_A14B,i2v_A14B}.py (sample_shift, boundary, frame_num, sample_fps)
WAN_22_T2V_A14B = replace(
    WAN_21_T2V_14B,
    hub="Wan-AI/Wan2.2-T2V-A14B-Diffusers",
    height_px=720,
    width_px=1280,
    shift=12.0,
    experts=2,
    boundary=0.875,
)
# CogVideoX: the authors' README (sizes, frames, fps); v-prediction, betas 0.00085 to 0.012, scaled linear
COGVIDEOX_5B_T2V = PublishedModel(
    hub="zai-org/CogVideoX-5b",
    family="cogvideox",
    class_name="CogVideoXTransformer3DModel",
    transformer=_cogvideox(48, 42, 16),
    num_parameters=5_570_283_072,
    codec=COGVIDEOX_VAE,
    text=T5_XXL,
    num_frames=49,
    height_px=480,
    width_px=720,
    fps=8,
    rates=COGVIDEOX_RATES,
)
COGVIDEOX_15_T2V = replace(
    COGVIDEOX_5B_T2V,
    hub="zai-org/CogVideoX1.5-5B",
    transformer=_cogvideox(48, 42, 16, **COGVIDEOX_15),
    num_parameters=5_570_676_352,
    num_frames=81,
    height_px=768,
    width_px=1360,
    fps=16,
)

MODELS: Mapping[str, PublishedModel] = MappingProxyType(
    {
        "wan2.1-t2v-1.3b": replace(
            WAN_21_T2V_14B,
            hub="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
            transformer=_wan(12, 8960, 30, (16, 16)),
            num_parameters=1_418_996_800,
        ),
        "wan2.1-t2v-14b": WAN_21_T2V_14B,
        "wan2.1-i2v-14b-480p": WAN_21_I2V_480P,
        "wan2.1-i2v-14b-720p": replace(
            WAN_21_I2V_480P,
            hub="Wan-AI/Wan2.1-I2V-14B-720P-Diffusers",
            height_px=720,
            width_px=1280,
            shift=5.0,
        ),
        "wan2.2-ti2v-5b": replace(
            WAN_21_T2V_14B,
            hub="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
            transformer=_wan(24, 14336, 30, (48, 48)),
            num_parameters=4_999_787_712,
            codec=WAN_22_VAE,
            num_frames=121,
            height_px=704,
            width_px=1280,
            fps=24,
            shift=5.0,
            image=True,
            per_token_timesteps=True,
        ),
        "wan2.2-t2v-a14b": WAN_22_T2V_A14B,
        "wan2.2-i2v-a14b": replace(
            WAN_22_T2V_A14B,
            hub="Wan-AI/Wan2.2-I2V-A14B-Diffusers",
            transformer=WAN_14B_FIRST_FRAME,
            num_parameters=14_288_901_184,
            shift=5.0,
            boundary=0.9,
            image=True,
        ),
        "cogvideox-2b": replace(
            COGVIDEOX_5B_T2V,
            hub="zai-org/CogVideoX-2b",
            transformer=_cogvideox(30, 30, 16, use_rotary_positional_embeddings=False),
            num_parameters=1_693_783_872,
            snr_shift=3.0,
        ),
        "cogvideox-5b": COGVIDEOX_5B_T2V,
        "cogvideox-5b-i2v": replace(
            COGVIDEOX_5B_T2V,
            hub="zai-org/CogVideoX-5b-I2V",
            transformer=_cogvideox(48, 42, 32, use_learned_positional_embeddings=True),
            num_parameters=5_570_479_680,
            image=True,
        ),
        "cogvideox1.5-5b": COGVIDEOX_15_T2V,
        "cogvideox1.5-5b-i2v": replace(
            COGVIDEOX_15_T2V,
            hub="zai-org/CogVideoX1.5-5B-I2V",
            transformer=_cogvideox(48, 42, 32, ofs_embed_dim=512, **COGVIDEOX_15),
            num_parameters=5_571_594_880,
            image=True,
        ),
    }
)


def published(name: str) -> PublishedModel:
    """The model of that name, in any case; raises InputError naming those that exist."""
    known = name.lower().removesuffix("-diffusers").rsplit("/", 1)[-1]
    if known not in MODELS:
        near = difflib.get_close_matches(known, MODELS, 1, 0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"model: {name!r} is not a published model; {hint}known are {', '.join(MODELS)}")
    return MODELS[known]
