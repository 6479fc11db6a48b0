"""A LoRA trained here, drawn with by whole pipelines of diffusers: the same videos, alpha other than rank."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel, WanTransformer3DModel
from safetensors.torch import save_file

from pipeline import adapters
from pipeline.config import AdapterConfig
from pipeline.exports import comfyui
from tests.tiny_pipelines import cogvideox_pipeline, video, wan_pipeline
from tests.tiny_transformers import COGVIDEOX_5B, WAN_T2V

ALIKE = {
    "rtol": 0.0,
    "atol": 1e-6,
}  # of pixels in [0,1]; the largest seen was 0, and 0.1 to 1 with alpha lost
LORA = AdapterConfig(kind="lora", rank=3, alpha=7.0)


def wan(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return WanTransformer3DModel(**WAN_T2V)


def cogvideox(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return CogVideoXTransformer3DModel(**COGVIDEOX_5B)


def trained(transformer: Any) -> Any:
    """The transformer with a LoRA that has learned something."""
    adapters.apply(transformer, torch.nn.Linear(1, 1), LORA, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in transformer.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.5, generator=generator)
    return transformer


@pytest.mark.parametrize(("new", "pipeline"), [(wan, wan_pipeline), (cogvideox, cogvideox_pipeline)])
def test_load_lora_weights_draws_the_same_video(
    new: Callable[[], Any], pipeline: Callable[[Any], Any], tmp_path: Path
) -> None:
    model = trained(new())
    adapters.save_lora(model, tmp_path)
    expected, elsewhere = video(pipeline(model)), pipeline(new())
    before = video(elsewhere)
    elsewhere.load_lora_weights(tmp_path)  # the folder: it finds its own file among ours
    after = video(elsewhere)
    torch.testing.assert_close(after, expected, **ALIKE)
    assert (after - before).abs().max() > 1e-3
    assert elsewhere.transformer.peft_config["default_0"].lora_alpha == 7.0


def test_it_loads_into_the_second_expert_of_wan_2_2(tmp_path: Path) -> None:
    adapters.save_lora(trained(wan(5)), tmp_path)
    expected = video(wan_pipeline(wan(0), trained(wan(5))))
    elsewhere = wan_pipeline(wan(0), wan(5))
    before = video(elsewhere)
    elsewhere.load_lora_weights(tmp_path, load_into_transformer_2=True)
    after = video(elsewhere)
    torch.testing.assert_close(after, expected, **ALIKE)
    assert (after - before).abs().max() > 1e-3
    assert not adapters.has_lora(elsewhere.transformer)


def test_a_file_for_comfyui_draws_the_same_video_in_diffusers_too(tmp_path: Path) -> None:
    model = trained(wan())
    named = comfyui.lora_names("WanTransformer3DModel", adapters.lora_weights(model), LORA.alpha)
    save_file(named, tmp_path / "lora.safetensors")
    elsewhere = wan_pipeline(wan())
    elsewhere.load_lora_weights(tmp_path / "lora.safetensors")
    torch.testing.assert_close(video(elsewhere), video(wan_pipeline(model)), rtol=0, atol=1e-5)


def test_peft_still_reads_the_folder_with_the_third_file_in_it(tmp_path: Path) -> None:
    adapters.save_lora(trained(wan()), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "pytorch_lora_weights.safetensors",
    }
    fresh = wan()
    adapters.load_lora(fresh, tmp_path)
    torch.testing.assert_close(video(wan_pipeline(fresh)), video(wan_pipeline(trained(wan()))), **ALIKE)
