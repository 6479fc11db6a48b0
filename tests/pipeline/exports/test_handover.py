"""What others load draws what was trained here: after each form of export, the same answers and the same video."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file

from data_prep.records import InputError
from pipeline import adapters, generate
from pipeline import model as models
from pipeline.batch import Batch
from pipeline.config import AdapterConfig, GenerateConfig, ModelConfig
from pipeline.exports import handover
from pipeline.identity.bank import BankEntry, IdentityBank
from pipeline.model import Model
from pipeline.objective import objective

DRAW = GenerateConfig(num_frames=3, height_px=32, width_px=48, steps=3, seed=2, guidance=1.0)
LORA = AdapterConfig(kind="lora", rank=3, alpha=7.0, learning_rate=0.05, identity_learning_rate=0.01)
FULL = AdapterConfig(learning_rate=1e-3, identity_learning_rate=0.01)


@pytest.fixture(params=["lora", "full"])
def export(
    request: pytest.FixtureRequest,
    new_model: Callable[..., Model],
    make_batch: Callable[..., Batch],
    model_config: ModelConfig,
    tmp_path: Path,
) -> Path:
    """The export of a few steps of training, with a bank."""
    adapter = LORA if request.param == "lora" else FULL
    config = replace(model_config, adapter=adapter)
    model = new_model(config=config)
    adapters.apply(model.transformer, model.identity, adapter, seed=0)
    optimizer = torch.optim.AdamW(adapters.trainable_groups(model.transformer, model.identity, adapter))
    asked = objective.build(config, model, seed=0)
    for seed in range(4):
        asked(make_batch(seed=seed))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        models.save(model, tmp_path / "export")
    entries = [BankEntry(name, torch.randn(3, 24), torch.randn(2, 32)) for name in ("anna", "ben")]
    IdentityBank(entries).save(tmp_path / "export" / "bank")
    return tmp_path / "export"


def answers(export: Path, transformer: torch.nn.Module | None, batch: Batch) -> tuple[dict[str, float], Any]:
    """All scalars of training on a batch, and a video of a cast, with a transformer's weights from elsewhere."""
    loaded = generate.load_run(export)
    model = loaded.model
    if transformer is not None:
        adapters.fold_lora(model.transformer)
        model.transformer.load_state_dict(transformer.state_dict())
    scene = generate.Scene("Anna talks to Ben", loaded.bank.cast(["anna", "ben"]))
    with torch.no_grad():
        scalars = objective.build(model.config, model, seed=0)(batch)
    return {n: float(v) for n, v in scalars.items() if v.ndim == 0}, generate.generate(model, scene, DRAW)


def in_diffusers(export: Path, folder: Path) -> torch.nn.Module:
    handover.hand_over(handover.to_diffusers, export, folder / "elsewhere")
    return cast("torch.nn.Module", WanTransformer3DModel.from_pretrained(folder / "elsewhere"))


def in_comfyui(export: Path, folder: Path) -> torch.nn.Module:
    file = folder / "whole.safetensors"
    handover.hand_over(handover.to_comfyui_whole, export, file)
    config = str(export / "transformer")
    return cast("torch.nn.Module", WanTransformer3DModel.from_single_file(str(file), config=config))


def with_lora(source: str | Path, export: Path) -> torch.nn.Module:
    """The base that was trained on, with a LoRA that diffusers has read, folded in by peft."""
    from diffusers import WanPipeline

    transformer = WanTransformer3DModel.from_pretrained(export / "transformer")
    weights, told = WanPipeline.lora_state_dict(source, return_lora_metadata=True)
    WanPipeline.load_lora_into_transformer(weights, transformer, adapter_name="x", metadata=told)
    transformer.fuse_lora()
    transformer.unload_lora()
    return cast("torch.nn.Module", transformer)


def lora_in_pipelines(export: Path, folder: Path) -> torch.nn.Module:
    handover.hand_over(handover.to_peft, export, folder / "lora")
    return with_lora(folder / "lora", export)


def lora_in_comfyui(export: Path, folder: Path) -> torch.nn.Module:
    handover.hand_over(handover.to_comfyui, export, folder / "lora.safetensors")
    return with_lora(folder / "lora.safetensors", export)


WHOLE = (in_diffusers, in_comfyui)
LORA_FORMS = (lora_in_pipelines, lora_in_comfyui)


@pytest.mark.parametrize(
    ("export", "elsewhere"),
    [("full", form) for form in WHOLE] + [("lora", form) for form in (*WHOLE, *LORA_FORMS)],
    indirect=["export"],
)
def test_the_likeness_is_the_same_elsewhere(
    export: Path,
    elsewhere: Callable[[Path, Path], torch.nn.Module],
    make_batch: Callable[..., Batch],
    tmp_path: Path,
) -> None:
    """Scalars to 1e-5, pixels to 1 of 255: what folding a LoRA in rounds off. Without LoRA, to the bit."""
    batch = make_batch(seed=9)
    expected, video = answers(export, None, batch)
    found, drawn = answers(export, elsewhere(export, tmp_path), batch)
    assert found == pytest.approx(expected, abs=1e-5)
    assert abs(drawn.astype(int) - video.astype(int)).max() <= 1
    if not (export / "lora").is_dir():
        assert found == expected and (drawn == video).all()


@pytest.mark.parametrize("export", ["lora"], indirect=True)
def test_what_was_trained_matters(export: Path, make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(seed=9)
    base = WanTransformer3DModel.from_pretrained(export / "transformer")
    expected, _ = answers(export, None, batch)
    untrained, _ = answers(export, base, batch)
    assert abs(untrained["loss"] - expected["loss"]) > 1e-3


@pytest.mark.parametrize("export", ["lora"], indirect=True)
@pytest.mark.parametrize("form", handover.FORMATS)
def test_each_form_is_read_back_without_difference(export: Path, form: str, tmp_path: Path) -> None:
    written = handover.hand_over(handover.FORMATS[form], export, tmp_path / "out.safetensors")
    matrices = (
        2 * 2 * 4 * 2
    )  # layers, attentions, projections, A and B; peft and diffusers read them once each
    whole = len(load_file(export / "transformer" / "diffusion_pytorch_model.safetensors"))
    assert written.num_tensors == {"peft": 2 * matrices, "comfyui": matrices}.get(form, whole)
    assert written.difference == 0
    assert ("not on a published model's" in written.remark) == (form in ("peft", "comfyui"))
    assert {path.name for path in tmp_path.iterdir()} == {"export", "out.safetensors"}


@pytest.mark.parametrize("export", ["lora"], indirect=True)
def test_a_peft_folder_of_an_earlier_version_gets_the_third_file(export: Path, tmp_path: Path) -> None:
    (export / "lora" / "pytorch_lora_weights.safetensors").unlink()
    handover.hand_over(handover.to_peft, export, tmp_path / "lora")
    assert (tmp_path / "lora" / "pytorch_lora_weights.safetensors").is_file()


@pytest.mark.parametrize("export", ["full"], indirect=True)
def test_a_run_without_lora_says_so_and_leaves_nothing(export: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="trained with all weights, it has no LoRA; use --to diffusers"):
        handover.hand_over(handover.to_peft, export, tmp_path / "lora")
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    written = handover.hand_over(handover.to_comfyui, export, tmp_path / "out.safetensors")
    assert written.what == "transformer" and "patch_size (1, 1, 1) (there (1, 2, 2))" in written.remark


@pytest.mark.parametrize("export", ["lora"], indirect=True)
def test_what_is_read_back_otherwise_is_not_kept(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torn(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        name = next(name for name in tensors if name.endswith("lora_up.weight"))
        save_file({**tensors, name: tensors[name] + 1e-3}, path, metadata)

    monkeypatch.setattr(handover, "save_file", torn)
    with pytest.raises(RuntimeError, match=r"WanPipeline.lora_state_dict reads another LoRA .* by 0.001"):
        handover.hand_over(handover.to_comfyui, export, tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


@pytest.mark.parametrize("export", ["lora"], indirect=True)
def test_killed_on_the_way_it_leaves_nothing_under_its_name_and_goes_through_again(
    export: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.safetensors"
    child = os.fork()
    if child == 0:  # dies as by kill -9 after writing, before it is read back
        handover._compared = lambda *_: os._exit(9)  # type: ignore[assignment]
        handover.hand_over(handover.to_comfyui, export, output)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not output.exists() and (tmp_path / ".out.partial.safetensors").is_file()
    handover.hand_over(handover.to_comfyui, export, output)
    assert {path.name for path in tmp_path.iterdir()} == {"export", "out.safetensors"}
