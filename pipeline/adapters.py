"""Which parameters are trained: all of the transformer, a LoRA on its attentions, or none; and identity or not.

LoRA is peft's, injected into the diffusers transformer in place and written in peft's own folder layout, with a
third file beside it that ``load_lora_weights`` of diffusers' pipelines takes. Alpha is kept in both (diffusers'
``save_lora_weights`` loses it unless told: difference 0.023 against 0 in a tiny model).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from data_prep.records import InputError
from pipeline.config import AdapterConfig
from pipeline.memory.quantised import BasePrecision
from pipeline.quantised import quantise

if TYPE_CHECKING:
    from peft import LoraConfig

ADAPTER = "default"  # the name peft gives to the only adapter of a folder
PEFT_FILE = "adapter_model.safetensors"
PEFT_PREFIX = "base_model.model."  # what peft expects before the names of the wrapped module
PIPELINE_PREFIX = "transformer."  # what diffusers' pipelines expect there
PIPELINE_FILE = "pytorch_lora_weights.safetensors"  # the file of a folder that they look for first
PIPELINE_CONFIG = "lora_adapter_metadata"  # the key of its header that holds LoraConfig's arguments


def apply(
    transformer: nn.Module,
    identity: nn.Module,
    config: AdapterConfig,
    seed: int,
    base_precision: BasePrecision = "dtype",
) -> None:
    """Sets what is trainable; for ``kind: lora`` a LoRA that is there is folded into the base and a new one added.

    A new LoRA leaves the outputs as they are (its B matrices are zero); ``seed`` draws its A matrices. The base
    below it is quantised where ``base_precision`` says so, after the folding.

    Raises:
        InputError: a target of the LoRA is no layer of the transformer, or torchao is not there.
    """
    fold_lora(transformer)
    transformer.requires_grad_(config.kind == "full")
    if config.kind == "lora":
        from peft import LoraConfig

        _check_targets(transformer, config.targets)
        quantise(transformer, base_precision)
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*get_apply_tensor_subclass")  # it cannot be merged: nor do we
            torch.manual_seed(seed)
            lora = LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=list(config.targets))
            cast("Any", transformer).add_adapter(lora, ADAPTER)
    identity.requires_grad_(config.train_identity)


def check(config: AdapterConfig) -> None:
    """Raise InputError where nothing would be trained."""
    if config.kind == "none" and not config.train_identity:
        raise InputError(
            "model.adapter.kind=none with model.adapter.train_identity=false: nothing would be trained; set kind "
            "to lora or full, or train_identity to true"
        )
    if config.kind == "lora" and not config.targets:
        raise InputError("model.adapter.targets=[]: a LoRA needs layers to sit on; give at least one name")


def _check_targets(transformer: nn.Module, targets: tuple[str, ...]) -> None:
    """peft takes a layer whose dotted name is a target or ends with ``.target``, and objects only if none does."""
    names = [name for name, module in transformer.named_modules() if isinstance(module, nn.Linear)]
    idle = [t for t in targets if not any(f".{name}".endswith(f".{t}") for name in names)]
    if idle:
        parts = {
            tuple(p for p in name.split(".") if not p.isdigit() or name.endswith(f".{p}")) for name in names
        }
        known = sorted({".".join(part[-2:]) for part in parts})
        raise InputError(
            f"model.adapter.targets: {', '.join(idle)} match no linear layer of the transformer; there are "
            f"{', '.join(known[:16])}{' and more' if len(known) > 16 else ''}"
        )


def trainable_groups(
    transformer: nn.Module, identity: nn.Module, config: AdapterConfig
) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer, each with its own ``lr``; a group without parameters is left out."""
    rates = (
        ("transformer", transformer, config.learning_rate),
        ("identity", identity, config.identity_learning_rate),
    )
    groups = [
        {"name": name, "params": [p for p in module.parameters() if p.requires_grad], "lr": rate}
        for name, module, rate in rates
    ]
    return [group for group in groups if group["params"]]


def has_lora(transformer: nn.Module) -> bool:
    """Whether a LoRA is injected."""
    return bool(getattr(transformer, "peft_config", None))


def save_lora(transformer: nn.Module, folder: Path) -> None:
    """Writes the injected LoRA as ``write_lora`` does; nothing where there is none."""
    if has_lora(transformer):
        write_lora(lora_weights(transformer), cast("Any", transformer).peft_config[ADAPTER], folder)


def write_lora(weights: Mapping[str, torch.Tensor], config: LoraConfig, folder: Path) -> None:
    """Writes a LoRA so that ``peft.PeftModel.from_pretrained`` reads the folder, and so that ``load_lora_weights``
    of ``WanPipeline`` and its like do; weights as of ``lora_weights``."""
    folder.mkdir(parents=True, exist_ok=True)
    for_peft = {PEFT_PREFIX + name: value for name, value in weights.items()}
    save_file(for_peft, folder / PEFT_FILE, metadata={"format": "pt"})
    config.save_pretrained(folder)
    told = {
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "target_modules": sorted(config.target_modules or ()),
    }
    header = {
        PIPELINE_CONFIG: json.dumps({PIPELINE_PREFIX + key: value for key, value in told.items()}),
        "format": "pt",
    }
    for_pipelines = {PIPELINE_PREFIX + name: value for name, value in weights.items()}
    save_file(for_pipelines, folder / PIPELINE_FILE, metadata=header)


def read_lora(folder: Path) -> tuple[dict[str, torch.Tensor], LoraConfig]:
    """The LoRA of a peft folder, as ``write_lora`` takes it."""
    from peft import LoraConfig

    stored = load_file(folder / PEFT_FILE)
    config = LoraConfig.from_pretrained(str(folder))
    return {name.removeprefix(PEFT_PREFIX): value for name, value in stored.items()}, config


def lora_weights(transformer: nn.Module) -> dict[str, torch.Tensor]:
    """The injected LoRA's matrices as ``LAYER.lora_A.weight`` and ``LAYER.lora_B.weight``, on the CPU."""
    from peft import get_peft_model_state_dict

    weights = get_peft_model_state_dict(transformer, adapter_name=ADAPTER)
    return {name: value.detach().cpu().contiguous() for name, value in weights.items()}


def load_lora(transformer: nn.Module, folder: Path) -> None:
    """Injects the LoRA of a peft folder in place, frozen."""
    from peft import PeftModel

    PeftModel.from_pretrained(cast("Any", transformer), folder, adapter_name=ADAPTER)


def fold_lora(transformer: nn.Module) -> None:
    """Adds an injected LoRA into the weights and removes it; nothing where there is none."""
    if has_lora(transformer):
        cast("Any", transformer).fuse_lora()
        cast("Any", transformer).unload_lora()


def base_weights(transformer: nn.Module) -> dict[str, torch.Tensor]:
    """The transformer's own weights under their own names, whether or not a LoRA wraps some of its layers."""
    return {
        name.replace(".base_layer.", "."): value.detach()
        for name, value in transformer.state_dict().items()
        if ".lora_" not in name
    }


def save_base(transformer: nn.Module, folder: Path) -> None:
    """Writes the transformer without LoRA in diffusers' own layout, with no second copy in memory."""
    kind = cast("Any", type(transformer))
    with torch.device("meta"):
        plain = kind.from_config(transformer.config)
    plain.load_state_dict(base_weights(transformer), assign=True)
    plain.save_pretrained(folder)
