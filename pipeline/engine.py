"""The DeepSpeed engine behind five verbs: forward, backward, step, save, load. Nothing else imports deepspeed.

ZeRO's stage, the precision and the accumulation are numbers in one dictionary; the learning rate is a pure
function of the step, so the engine carries no scheduler state.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import pickle
import re
import shutil
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

# A process that has asked the CUDA driver anything cannot fork children that use it, and ranks are forked:
# PyTorch counts devices through NVML, and DeepSpeed is told which accelerator there is instead of trying each.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

import torch
import torch.distributed as dist
from torch.distributed import Store  # type: ignore[attr-defined]

os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")

import deepspeed
from deepspeed.checkpoint import ds_to_universal
from deepspeed.ops import __compatible_ops__
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

from data_prep.records import InputError
from pipeline.batch import Batch
from pipeline.config import EngineConfig, OptimizerConfig
from pipeline.rank import Rank

__compatible_ops__["deepspeed_shm_comm"] = False  # a minute of compilation for what training never uses
deepspeed.utils.logger.setLevel(logging.WARNING)

RECORDS = (LossScaler, ZeroStageEnum, fragment_address)  # all that its checkpoints hold beside plain values
ONLY_WEIGHTS, ANYTHING = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
TAG = "engine"
UNIVERSAL = "universal"


def zero_config(config: EngineConfig, micro_batch: int) -> dict[str, Any]:
    """DeepSpeed's configuration dictionary; everything it would otherwise choose silently is stated.

    Args:
        config: stage, precision, accumulation, clipping, offload.
        micro_batch: samples per process and forward pass.
    """
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": config.accumulation,
        "gradient_clipping": config.gradient_clipping,  # DeepSpeed's own default is 1.0
        "zero_optimization": {
            "stage": config.zero_stage,
            "offload_optimizer": {"device": "cpu" if config.offload_optimizer else "none"},
            "offload_param": {"device": "cpu" if config.offload_parameters else "none"},
        },
        "zero_force_ds_cpu_optimizer": False,  # its CPUAdam is compiled at first use, three minutes
        "bf16": {"enabled": config.dtype == "bf16"},
        "steps_per_print": 10**9,
        "checkpoint": {"load_universal": False},
    }


def learning_rate_scale(step: int, num_steps: int, config: OptimizerConfig) -> float:
    """Factor in [0, 1] on all learning rates at 0-based ``step``: linear warm-up, then constant or cosine."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    if config.schedule == "constant":
        return warm
    done = min(1.0, max(0.0, (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps)))
    floor = config.final_scale
    return warm * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))


def join(rank: Rank, store: Store, config: EngineConfig) -> None:
    """Enter the process group of the ranks that have met at ``store``; DeepSpeed then finds it made."""
    os.environ.update(rank.environment())
    if rank.address.host in (
        "127.0.0.1",
        "localhost",
    ):  # a host's own name may lead to an address that is not up
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    limit = timedelta(seconds=config.timeout_s)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if backend == "nccl":
        torch.cuda.set_device(rank.local)
    store.set_timeout(limit)
    dist.init_process_group(backend, store=store, rank=rank.index, world_size=rank.world, timeout=limit)
    deepspeed.init_distributed(backend, timeout=limit, verbose=False)


def leave() -> None:
    """Leave the process group, so that a later one in this process starts clean."""
    if dist.is_initialized():
        dist.destroy_process_group()


def adamw(groups: Sequence[dict[str, Any]], config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over groups with ``params`` (trainable ones only) and ``lr``."""
    return torch.optim.AdamW(
        [dict(group) for group in groups],
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
    )


def gather(value: Any) -> list[Any]:
    """Every rank's ``value``, in rank order; also a barrier."""
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


class Engine:
    """An objective, its optimizer and their partition over the ranks."""

    def __init__(
        self,
        objective: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        config: EngineConfig,
        micro_batch: int,
        universal: bool = False,
    ) -> None:
        """Wrap ``objective``; ``universal`` where a checkpoint of another number of ranks will be loaded."""
        options = zero_config(config, micro_batch)
        options["checkpoint"]["load_universal"] = universal
        self._config, self._universal = config, universal
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._engine = deepspeed.initialize(model=objective, optimizer=optimizer, config=options)[0]

    @property
    def device(self) -> torch.device:
        return torch.device(self._engine.device)

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The objective's named scalars; under bf16 its matrix products run in bf16."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._config.dtype == "bf16"):
            scalars: dict[str, torch.Tensor] = self._engine(batch)
        return scalars

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulate gradients; DeepSpeed divides by the number of accumulated passes itself."""
        self._engine.backward(loss)

    def step(self, learning_rate_scale: float) -> None:
        """Update at the accumulation's end, before it do nothing; call it after every backward."""
        for group, rate in zip(self._engine.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * learning_rate_scale
        self._engine.step()

    def mean(self, parts: Sequence[Mapping[str, torch.Tensor]], flag: bool) -> tuple[dict[str, float], bool]:
        """Means of named scalars over accumulated passes and ranks, and whether any rank raised its flag.

        One all-reduce a step: what the ranks must agree on travels with what they log.
        """
        names = sorted(parts[0])
        rows = [torch.stack([part[name].float() for name in names]) for part in parts]
        raised = torch.tensor([float(flag)], device=self.device)
        total = torch.cat([torch.stack(rows).mean(0), raised])
        dist.all_reduce(total)
        *sums, flags = total.tolist()
        return {
            name: value / dist.get_world_size() for name, value in zip(names, sums, strict=True)
        }, flags > 0

    def gradient_norm(self) -> float:
        """L2 norm of the last update's gradient before clipping; NaN where DeepSpeed did not measure it."""
        norm = self._engine.get_global_grad_norm()
        return math.nan if norm is None else float(norm)

    def save(self, folder: Path) -> None:
        """Write this process's share of parameters (trainable ones) and optimizer below ``folder``."""
        self._engine.save_checkpoint(str(folder), tag=TAG, save_latest=False, exclude_frozen_parameters=True)

    def load(self, folder: Path) -> None:
        """Read what ``save`` wrote, or, for a universal engine, what ``make_universal`` made of it.

        Raises:
            InputError: it holds what could run code.
        """
        tag = UNIVERSAL if self._universal else TAG
        with _plain_records_only(folder):
            path, _ = self._engine.load_checkpoint(str(folder), tag=tag, load_module_strict=False)
        if path is None:
            raise RuntimeError(f"DeepSpeed found no checkpoint in {folder / tag}")


def make_universal(folder: Path) -> None:
    """Write the checkpoint of ``folder`` once more, in the form that any number of processes can load.

    Called by every rank; the first one works. Not for stage 0, whose checkpoints are the same for all.

    Raises:
        InputError: it holds what could run code.
    """
    if dist.get_rank() == 0:
        target = folder / UNIVERSAL
        shutil.rmtree(target, ignore_errors=True)  # of a conversion that was killed
        options = {
            "num_extract_workers": 1,
            "num_merge_workers": 1,
            "keep_temp_folder": False,
            "strict": True,
        }
        places = {"input_folder": str(folder / TAG), "output_folder": str(target)}
        with _plain_records_only(folder), _quiet():
            ds_to_universal.main(Namespace(**places, **options, inject_missing_state=True))
    dist.barrier()


def trained_parameters(folder: Path, zero_stage: int) -> dict[str, torch.Tensor]:
    """f32 values of the trained parameters, by name in the objective, read from a checkpoint by one process.

    Raises:
        InputError: it holds what could run code.
    """
    with _plain_records_only(folder):
        if zero_stage == 0:
            path = folder / TAG / "mp_rank_00_model_states.pt"
            states = torch.load(path, map_location="cpu", weights_only=True)
            return {name: value.float() for name, value in states["module"].items()}
        with _quiet():
            values: dict[str, torch.Tensor] = get_fp32_state_dict_from_zero_checkpoint(str(folder), tag=TAG)
        return {name: value.clone() for name, value in values.items()}


@contextlib.contextmanager
def _plain_records_only(folder: Path) -> Iterator[None]:
    """Whatever DeepSpeed asks for, its files are read without running anything that is written in them.

    It reads with ``weights_only=False``, with which a pickle may call any function; the variable overrules that.
    """
    before = {name: os.environ.pop(name, None) for name in (ONLY_WEIGHTS, ANYTHING)}
    os.environ[ONLY_WEIGHTS] = "1"
    try:
        with torch.serialization.safe_globals(list(RECORDS)):
            yield
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise InputError(
            f"checkpoint {str(folder)!r} is refused: it holds {found[1] if found else 'something'} beside tensors "
            "and DeepSpeed's own records, which castbank never writes and which could run code when it is read. "
            "Delete it to go on from the one before, and find out who has changed it"
        ) from error
    finally:
        del os.environ[ONLY_WEIGHTS]
        os.environ.update({name: value for name, value in before.items() if value is not None})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """DeepSpeed's converters chat."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
