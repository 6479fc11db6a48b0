"""DeepSpeed's configuration dictionary: ours from the knobs, a user's own keys merged in, conflicts refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
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
    "bfloat16": "engine.dtype",
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

# further keys at the top that DeepSpeed 0.19 reads (a test asks its own code); others it ignores silently
THEIRS = (
    "aio",
    "autotuning",
    "comet",
    "comms_logger",
    "communication_data_type",
    "compile",
    "csv_monitor",
    "data_efficiency",
    "dataloader_drop_last",
    "datastates_ckpt",
    "disable_allgather",
    "disable_python_gc",
    "dump_state",
    "expert_parallel",
    "flops_profiler",
    "gradient_allreduce_op",
    "gradient_predivide_factor",
    "hybrid_engine",
    "log_level",
    "managed_gradient_accumulation",
    "memory_breakdown",
    "pipeline",
    "prescale_gradients",
    "seq_parallel_communication_data_type",
    "sequence_parallel_size",
    "tensor_parallel",
    "tensorboard",
    "timers",
    "use_data_before_expert_parallelism",
    "vocabulary_size",
    "wall_clock_breakdown",
    "wandb",
    "weight_quantization",
    "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer",
    "zero_optimization",
)
REDUCE_BUCKET = 500_000_000  # numbers; DeepSpeed's default, allocated whole however little is trained


def zero_config(config: EngineConfig, micro_batch: int, num_trained: int) -> dict[str, Any]:
    """DeepSpeed's configuration dictionary; everything it would otherwise choose silently is stated.

    Args:
        config: stage, precision, accumulation, clipping, offload, a user's own keys.
        micro_batch: samples per process and forward pass.
        num_trained: numbers in all trained parameters.
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
            "reduce_bucket_size": reduce_bucket(config, num_trained),
        },
        "zero_force_ds_cpu_optimizer": False,  # its CPUAdam is compiled at first use, three minutes
        "bf16": {"enabled": config.dtype == "bf16", "check_grad_overflow": config.dtype == "bf16"},
        "steps_per_print": 10**9,
        "checkpoint": {"load_universal": False},
    }
    return _merged(ours, config.deepspeed)


def reduce_bucket(config: EngineConfig, num_trained: int) -> int:
    """Numbers of the buffer in which gradients travel: a user's own, else as many as are trained, up to the default
    of DeepSpeed."""
    own = config.deepspeed.get("zero_optimization")
    size = own.get("reduce_bucket_size") if isinstance(own, Mapping) else None
    return int(size) if isinstance(size, int | float) else min(REDUCE_BUCKET, num_trained)


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
    for key in config.deepspeed:
        _check_known(key)
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


def _check_known(key: str) -> None:
    """DeepSpeed checks what is inside its sections, and ignores a section, or key beside them, that it does not
    know."""
    known = {*THEIRS, *(name.split(".")[0] for name in OURS)}
    if key not in known:
        near = get_close_matches(key, known, 1)
        meant = f"; did you mean {near[0]}" if near else f"; it reads {', '.join(THEIRS)}"
        raise InputError(f"engine.deepspeed: {key} is no key of DeepSpeed's, which would ignore it{meant}")


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
