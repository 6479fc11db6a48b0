"""DeepSpeed's configuration dictionary: ours from the knobs, a user's own keys merged in, conflicts refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from data_prep.records import InputError
from pipeline.config import EngineConfig

OURS = {  # what is a knob of ours, and its name; a second value for it would be ignored or would contradict
    "train_batch_size": "batch_size",
    "train_micro_batch_size_per_gpu": "batch_size",
    "gradient_accumulation_steps": "engine.accumulation",
    "gradient_clipping": "engine.gradient_clipping",
    "zero_optimization.stage": "engine.zero_stage",
    "zero_optimization.offload_optimizer.device": "engine.offload_optimizer",
    "zero_optimization.offload_optimizer.nvme_path": "engine.offload_folder",
    "zero_optimization.offload_param.device": "engine.offload_parameters",
    "zero_optimization.offload_param.nvme_path": "engine.offload_folder",
    "bf16": "engine.dtype",
    "fp16": "engine.dtype",
    "torch_autocast": "engine.dtype",
    "amp": "engine.dtype",
    "data_types": "engine.dtype",
    "optimizer": "optimizer.*",
    "scheduler": "optimizer.schedule",
    "checkpoint": "checkpoints.*",
    "activation_checkpointing": "engine.activation_checkpointing",
    "steps_per_print": "tracking.*",
}


def zero_config(config: EngineConfig, micro_batch: int) -> dict[str, Any]:
    """DeepSpeed's configuration dictionary; everything it would otherwise choose silently is stated.

    Args:
        config: stage, precision, accumulation, clipping, offload, a user's own keys.
        micro_batch: samples per process and forward pass.
    """
    ours = {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": config.accumulation,
        # DeepSpeed's own default is 1.0; where its optimizers are not used we clip (pipeline.training.optimizer)
        "gradient_clipping": 0.0 if plain(config) else config.gradient_clipping,
        "zero_optimization": {
            "stage": config.zero_stage,
            "offload_optimizer": _offload(config.offload_optimizer, config),
            "offload_param": _offload(config.offload_parameters, config),
        },
        "zero_force_ds_cpu_optimizer": False,  # its CPUAdam is compiled at first use, three minutes
        "bf16": {"enabled": config.dtype == "bf16", "check_grad_overflow": config.dtype == "bf16"},
        "steps_per_print": 10**9,
        "checkpoint": {"load_universal": False},
    }
    return _merged(ours, config.deepspeed)


def plain(config: EngineConfig) -> bool:
    """Whether DeepSpeed runs the optimizer as it is, without a wrapper of its own."""
    return config.zero_stage == 0 and config.dtype == "fp32"


def check(config: EngineConfig) -> None:
    """Raise InputError for knobs that contradict each other, and for DeepSpeed keys that are knobs of ours."""
    stage = f"engine.zero_stage={config.zero_stage}"
    if config.offload_parameters != "none" and config.zero_stage != 3:
        raise InputError(
            f"engine.offload_parameters={config.offload_parameters}: only engine.zero_stage=3 can offload "
            f"parameters ({stage}); set it to 3, or offload_parameters to none"
        )
    if config.offload_optimizer != "none" and config.zero_stage == 0:
        raise InputError(
            f"engine.offload_optimizer={config.offload_optimizer}: {stage} keeps the whole optimizer on each rank; "
            "set zero_stage to 1, 2 or 3"
        )
    if config.offload_optimizer == "nvme" and config.zero_stage != 3:
        raise InputError(
            f"engine.offload_optimizer=nvme: only engine.zero_stage=3 can ({stage}); set it to 3, or offload to cpu"
        )
    if "nvme" in (config.offload_optimizer, config.offload_parameters) and not config.offload_folder:
        raise InputError(
            "engine.offload_folder: nvme needs a folder on a fast local disk; give one, the same path on every host"
        )
    for key, value in _flat(config.deepspeed):
        _check_key(key, value)


@contextmanager
def refusals_named(config: EngineConfig) -> Iterator[None]:
    """A block that hands a user's own keys to DeepSpeed; raises InputError, which shows them, where it refuses."""
    try:
        yield
    except ValueError as error:  # such as pydantic's, of a key that a section does not know
        if not config.deepspeed:
            raise
        said = " ".join(str(error).split())
        raise InputError(
            f"engine.deepspeed={config.deepspeed}: DeepSpeed refuses it: {said}; name and fill keys as its "
            "documentation of the configuration does"
        ) from error


def _check_key(key: str, value: Any) -> None:
    for ours, knob in OURS.items():
        if key == ours or key.startswith(f"{ours}."):
            raise InputError(f"engine.deepspeed: {key}={value!r} is castbank's own; set {knob} instead")


def _offload(device: str, config: EngineConfig) -> dict[str, Any]:
    where = {"nvme_path": config.offload_folder} if device == "nvme" else {}
    return {"device": device, **where}


def _merged(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Theirs over ours, section by section."""
    merged = dict(ours)
    for key, value in theirs.items():
        before = merged.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(before, value)
        else:
            merged[key] = value
    return merged


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted keys and values of a nested table; an empty section counts as a value."""
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        nested = isinstance(value, Mapping) and value
        found += _flat(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", value)]
    return found
