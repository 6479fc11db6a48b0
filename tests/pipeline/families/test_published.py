"""The table of published models against diffusers' classes and against the sizes of the published files."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from data_prep.records import InputError
from pipeline.families.published import (
    COGVIDEOX_VAE,
    MODELS,
    T5_XXL,
    UMT5_XXL,
    WAN_21_VAE,
    WAN_22_VAE,
    published,
)

# Size of the published weights in GB (10^9 bytes) and the bytes of one number there, from the hub's file listings:
# Wan-AI/Wan2.1-T2V-1.3B-Diffusers/transformer (5.68 GB, fp32) and Comfy-Org/Wan_2.1_ComfyUI_repackaged (28.6 and
# 32.8 GB, bf16); CogVideoX-5b: 10.376 GiB on the GPU in finetrainers' docs/training/cogvideox.md (bf16).
PUBLISHED_GB = {
    "wan2.1-t2v-1.3b": (5.68, 4),
    "wan2.1-t2v-14b": (28.6, 2),
    "wan2.1-i2v-14b-480p": (32.8, 2),
    "wan2.1-i2v-14b-720p": (32.8, 2),
    "wan2.2-t2v-a14b": (28.6, 2),
    "wan2.2-i2v-a14b": (28.6, 2),
    "wan2.2-ti2v-5b": (10.0, 2),
    "cogvideox-5b": (10.376 * 2**30 / 1e9, 2),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_transformer_has_the_stated_number_of_parameters(name: str) -> None:
    import diffusers

    model = MODELS[name]
    with torch.device("meta"):
        transformer = getattr(diffusers, model.class_name)(**model.transformer)
    assert sum(p.numel() for p in transformer.parameters()) == model.num_parameters
    kept = {key: transformer.config[key] for key in model.transformer}
    assert kept == dict(model.transformer)


@pytest.mark.parametrize("name", PUBLISHED_GB)
def test_parameters_fit_the_published_files(name: str) -> None:
    size_gb, bytes_each = PUBLISHED_GB[name]
    assert MODELS[name].num_parameters * bytes_each / 1e9 == pytest.approx(size_gb, rel=0.005)


def test_codecs_and_text_encoders_have_the_stated_number_of_parameters() -> None:
    from diffusers import AutoencoderKLCogVideoX, AutoencoderKLWan
    from transformers import T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

    residual: dict[str, Any] = {
        "base_dim": 160,
        "decoder_base_dim": 256,
        "z_dim": 48,
        "in_channels": 12,
        "out_channels": 12,
        "patch_size": 2,
        "is_residual": True,
        "latents_mean": [0.0] * 48,
        "latents_std": [1.0] * 48,
    }
    downs, ups = ("CogVideoXDownBlock3D",) * 4, ("CogVideoXUpBlock3D",) * 4
    shape = {
        "d_model": 4096,
        "d_ff": 10240,
        "num_layers": 24,
        "num_heads": 64,
        "feed_forward_proj": "gated-gelu",
    }
    with torch.device("meta"):
        modules = (
            (WAN_21_VAE, AutoencoderKLWan()),
            (WAN_22_VAE, AutoencoderKLWan(**residual)),
            (
                COGVIDEOX_VAE,
                AutoencoderKLCogVideoX(
                    down_block_types=downs, up_block_types=ups, block_out_channels=(128, 256, 256, 512)
                ),
            ),
            (UMT5_XXL, UMT5EncoderModel(UMT5Config(vocab_size=256384, **shape))),
            (T5_XXL, T5EncoderModel(T5Config(vocab_size=32128, **shape))),
        )
    for stated, module in modules:
        assert type(module).__name__ == stated.class_name
        assert sum(p.numel() for p in module.parameters()) == stated.num_parameters
    # listed: Wan2.1_VAE fp32 508 MB, Wan2.2_VAE.pth 2.82 GB, umt5-xxl-enc-bf16 11.4 GB, T5 4.99 + 4.53 GB
    listed = ((WAN_21_VAE, 4, 0.508), (WAN_22_VAE, 4, 2.82), (UMT5_XXL, 2, 11.36), (T5_XXL, 2, 9.52))
    for stated, bytes_each, size_gb in listed:
        assert stated.num_parameters * bytes_each / 1e9 == pytest.approx(size_gb, rel=0.005)


@pytest.mark.parametrize("name", MODELS)
def test_the_default_size_fits_the_grid(name: str) -> None:
    model = MODELS[name]
    cells = model.codec.pixels * 2  # patch 2 in height and width
    assert (model.num_frames - 1) % model.codec.frames == 0
    assert model.height_px % cells == model.width_px % cells == 0
    assert (model.experts == 2) == (model.boundary is not None)


def test_names_are_found_as_people_write_them() -> None:
    assert published("Wan-AI/Wan2.1-T2V-14B-Diffusers") is MODELS["wan2.1-t2v-14b"]
    assert published("CogVideoX-5b") is MODELS["cogvideox-5b"]
    with pytest.raises(
        InputError, match=r"'wan2.1-t2v-15b' is not a published model; did you mean 'wan2.1-t2v-14b'"
    ):
        published("wan2.1-t2v-15b")
