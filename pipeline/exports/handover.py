"""An export in the forms that others load: diffusers' folder, peft's folder, one file for ComfyUI.

Each is written aside, read back by the other tool's own reader, compared with what was trained, and only then put
under its name. None of them holds the identity network or the bank, which nobody else can read: what is drawn
elsewhere is what the transformer, or the LoRA, has learned of the characters.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from data_prep.records import InputError
from pipeline import adapters
from pipeline import model as models
from pipeline.exports import comfyui
from pipeline.exports.export import largest_difference
from pipeline.training.checkpoints import to_disk

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Written:
    """What was written. reader: what read it back; difference: the largest of any value to what was trained;
    remark: what else a person should know, or empty."""

    what: str
    reader: str
    num_tensors: int
    difference: float
    remark: str = ""


Write = Callable[[Path, Path], Written]
"""Writes the export in the first folder to the second path, reads it back and compares."""


def hand_over(write: Write, export: Path, output: Path) -> Written:
    """Write an export for others at ``output``, where nothing is; whatever happens, no half of it is seen there.

    Raises:
        InputError: the export has not what is asked for.
        RuntimeError: what was read back is not what was trained.
    """
    aside = output.with_name(f".{output.stem}.partial{output.suffix}")  # readers go by the ending
    _remove(aside)
    aside.parent.mkdir(parents=True, exist_ok=True)
    try:
        written = write(export, aside)
        if not written.difference <= 0:  # also where it is NaN
            raise RuntimeError(
                f"{written.reader} reads another {written.what} than was trained, by {written.difference:.3g}"
            )
        to_disk([aside, *aside.rglob("*")] if aside.is_dir() else [aside])
        aside.rename(output)
        to_disk([output.parent])
    finally:
        _remove(aside)
    return written


def to_diffusers(export: Path, output: Path) -> Written:
    """The transformer, a LoRA folded into it, as ``from_pretrained`` reads it."""
    transformer = _whole(export)
    adapters.save_base(transformer, output)
    kind = cast("Any", type(transformer))
    read = kind.from_pretrained(output, torch_dtype=cast("Any", transformer).dtype)
    return _compared(
        "transformer", f"{kind.__name__}.from_pretrained", read.state_dict(), transformer.state_dict()
    )


def to_peft(export: Path, output: Path) -> Written:
    """The LoRA as ``PeftModel.from_pretrained`` and ``load_lora_weights`` of diffusers' pipelines read it."""
    from diffusers import (
        CogVideoXPipeline,
    )  # reads the file of any pipeline; Wan's differs for ComfyUI's names
    from peft import LoraConfig
    from peft.utils import load_peft_weights

    weights, config = _lora(export)
    adapters.write_lora(weights, config, output)
    in_peft = load_peft_weights(str(output), device="cpu")
    in_pipeline, told = CogVideoXPipeline.lora_state_dict(output, return_lora_metadata=True)
    alphas = (
        LoraConfig.from_pretrained(str(output)).lora_alpha,
        told[f"{adapters.PIPELINE_PREFIX}lora_alpha"],
    )
    if set(alphas) != {config.lora_alpha}:
        raise RuntimeError(f"peft and diffusers read alpha {alphas}, trained with {config.lora_alpha}")
    read = {**in_peft, **in_pipeline}
    expected = {
        prefix + name: value
        for prefix in (adapters.PEFT_PREFIX, adapters.PIPELINE_PREFIX)
        for name, value in weights.items()
    }
    return _compared("LoRA", "peft and diffusers", read, expected, _base(export))


def to_comfyui(export: Path, output: Path) -> Written:
    """A LoRA where there is one, else the whole transformer, as one file with ComfyUI's names."""
    if not (export / "lora").is_dir():
        return to_comfyui_whole(export, output)
    weights, config = _lora(export)
    kind = comfyui.kind_of(name.rpartition(".lora_")[0] for name in weights)
    save_file(comfyui.lora_names(kind, weights, config.lora_alpha), output, metadata={"format": "pt"})
    matrices = comfyui.without_alphas(load_file(output))
    expected = comfyui.stored(weights, config.lora_alpha)
    reader, read = (LORA_READERS.get(kind) or _by_our_table)(kind, matrices)
    return _compared("LoRA", reader, read, expected, _base(export))


def to_comfyui_whole(export: Path, output: Path) -> Written:
    """The whole transformer, a LoRA folded into it, as one file with ComfyUI's names."""
    transformer = _whole(export)
    kind, state = type(transformer).__name__, transformer.state_dict()
    named = comfyui.transformer_names(kind, state)
    save_file({name: value.contiguous() for name, value in named.items()}, output, metadata={"format": "pt"})
    if hasattr(transformer, "from_single_file"):
        reader, read = f"{kind}.from_single_file", _from_single_file(transformer, output)
    else:
        reader, read = _by_our_table(kind, load_file(output))
    remark = comfyui.limits(kind, cast("Any", transformer).config)
    return _compared("transformer", reader, read, state, remark)


FORMATS: Mapping[str, Write] = {
    "diffusers": to_diffusers,
    "peft": to_peft,
    "comfyui": to_comfyui,
    "comfyui-whole": to_comfyui_whole,
}
"""Forms by name."""


def _read_by_wan_pipeline(kind: str, matrices: Tensors) -> tuple[str, Tensors]:
    from diffusers import WanPipeline

    read = WanPipeline.lora_state_dict(dict(matrices))
    prefix = adapters.PIPELINE_PREFIX
    return "WanPipeline.lora_state_dict", {name.removeprefix(prefix): value for name, value in read.items()}


def _by_our_table(kind: str, tensors: Tensors) -> tuple[str, Tensors]:
    """Where nobody else here reads these names: the values are checked, the names are as right as the table."""
    return "castbank (nothing else here reads these names)", comfyui.diffusers_names(kind, tensors)


LORA_READERS: Mapping[str, Callable[[str, Tensors], tuple[str, Tensors]]] = {
    "WanTransformer3DModel": _read_by_wan_pipeline
}
"""Who else reads a LoRA with ComfyUI's names."""


def _from_single_file(transformer: nn.Module, file: Path) -> Tensors:
    """What diffusers reads from one file, with the shape of this transformer."""
    model = cast("Any", transformer)
    with tempfile.TemporaryDirectory() as config:
        model.save_config(config)
        read = type(model).from_single_file(str(file), config=config, torch_dtype=model.dtype)
    state: Tensors = read.state_dict()
    return state


def _whole(export: Path) -> nn.Module:
    """The transformer of an export with its LoRA folded in."""
    transformer = models.load(export).transformer.eval()
    adapters.fold_lora(transformer)
    return transformer


def _lora(export: Path) -> tuple[dict[str, torch.Tensor], Any]:
    if not (export / "lora").is_dir():
        raise InputError(
            f"{export}: trained with all weights, it has no LoRA; use --to diffusers or --to comfyui"
        )
    return adapters.read_lora(export / "lora")


def _base(export: Path) -> str:
    """A remark where a LoRA fits other weights than a published model's."""
    if not (export / "transformer").is_dir():
        return ""
    return (
        f"it was trained on the weights in {export / 'transformer'}, not on a published model's; give those to the "
        "other tool too, or use --to diffusers or comfyui-whole, which fold it in"
    )


def _compared(what: str, reader: str, read: Tensors, trained: Tensors, remark: str = "") -> Written:
    if read.keys() != trained.keys():
        other = sorted(read.keys() ^ trained.keys())
        raise RuntimeError(f"{reader} reads other tensors than were trained: {', '.join(other[:5])}")
    return Written(what, reader, len(read), largest_difference(read, trained), remark)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
