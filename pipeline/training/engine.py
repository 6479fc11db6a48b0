"""The DeepSpeed engine behind five verbs: forward, backward, step, copy, load. Nothing else imports deepspeed.

ZeRO's stage, the precision and the accumulation are numbers in one dictionary; the learning rate is a pure
function of the step, so the engine carries no scheduler state.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
import pickle
import re
import shutil
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
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
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

from data_prep.records import InputError
from pipeline.batch import Batch
from pipeline.config import EmaConfig, EngineConfig
from pipeline.objective.curves import divided
from pipeline.ranks.rank import Rank, check_gpu
from pipeline.training.checkpoints import write_text
from pipeline.training.ema import NAME, Ema, Fragment, fragments, read_whole, save_fragments
from pipeline.training.host_copy import to_host
from pipeline.training.optimizer import FiniteSteps
from pipeline.training.zero_config import plain, refusals_named, zero_config

__compatible_ops__["deepspeed_shm_comm"] = False  # a minute of compilation for what training never uses
deepspeed.utils.logger.setLevel(logging.WARNING)

RECORDS = (LossScaler, ZeroStageEnum, fragment_address)  # all that its checkpoints hold beside plain values
ONLY_WEIGHTS, ANYTHING = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
TAG = "engine"
UNIVERSAL = "universal"
SHAPES = "parameters.json"  # names and shapes of what was trained
NO_EMA = EmaConfig()


def join(rank: Rank, store: Store, config: EngineConfig) -> None:
    """Enter the process group of the ranks that have met at ``store``; DeepSpeed then finds it made.
    Raises InputError where there are GPUs, and none for this rank."""
    os.environ.update(rank.environment())
    if rank.address.host in (
        "127.0.0.1",
        "localhost",
    ):  # a host's own name may lead to an address that is not up
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    limit = timedelta(seconds=config.timeout_s)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if backend == "nccl":
        check_gpu(rank, torch.cuda.device_count())
        torch.cuda.set_device(rank.local)
    store.set_timeout(limit)
    dist.init_process_group(backend, store=store, rank=rank.index, world_size=rank.world, timeout=limit)
    deepspeed.init_distributed(backend, timeout=limit, verbose=False)


def leave() -> None:
    """Leave the process group, so that a later one in this process starts clean."""
    if dist.is_initialized():
        dist.destroy_process_group()


def gather(value: Any) -> list[Any]:
    """Every rank's ``value``, in rank order; also a barrier."""
    return _gathered(value, None)


def gathering(config: EngineConfig) -> Callable[[Any], list[Any]]:
    """A ``gather`` for another thread than the main one, whose turns do not mix with its; made by every rank."""
    group = dist.new_group(backend="gloo", timeout=timedelta(seconds=config.timeout_s))
    return lambda value: _gathered(value, group)


def _gathered(value: Any, group: dist.ProcessGroup | None) -> list[Any]:
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value, group=group)
    return values


class _Copies(TorchCheckpointEngine):  # type: ignore[misc]
    """Takes what DeepSpeed wants to save into host memory, to be written later."""

    def __init__(self) -> None:
        super().__init__()
        self._taken: list[tuple[Any, str]] = []

    def preserves_storage_sharing(self) -> bool:
        return False  # a view is copied alone: DeepSpeed need not clone it first

    def save(self, state_dict: Any, path: str) -> None:
        self._taken.append((to_host(state_dict), path))

    def take(self) -> list[tuple[Any, str]]:
        """What was saved since the last time, with its path."""
        taken, self._taken = self._taken, []
        return taken


class Engine:
    """An objective, its optimizer and their partition over the ranks."""

    def __init__(
        self,
        objective: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        config: EngineConfig,
        micro_batch: int,
        universal: bool = False,
        ema: EmaConfig = NO_EMA,
    ) -> None:
        """Wrap ``objective``; ``universal`` where a checkpoint of another number of ranks will be loaded. Raises
        InputError for keys of a user's that DeepSpeed refuses."""
        options = zero_config(config, micro_batch)
        options["checkpoint"]["load_universal"] = universal
        self._config, self._universal = config, universal
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._finite = FiniteSteps(optimizer, config.gradient_clipping) if plain(config) else None
        with refusals_named(config):
            self._engine = deepspeed.initialize(model=objective, optimizer=optimizer, config=options)[0]
        self._engine.checkpoint_engine = _Copies()
        self._ema = Ema(ema, self._fragments()) if ema.decay > 0 else None

    @property
    def device(self) -> torch.device:
        return torch.device(self._engine.device)

    @property
    def updated(self) -> bool:
        """Whether the last step changed the weights: it does not where a gradient was infinite or NaN."""
        return not getattr(self._engine.optimizer, "overflow", False)

    @property
    def counted(self) -> Sequence[torch.nn.Module]:
        """The objective's modules whose operations are its own, see ``throughput``; none where it names none."""
        return tuple(getattr(self._engine.module, "counted", ()))

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The objective's named scalars; under bf16 its matrix products run in bf16."""
        with self.precision():
            scalars: dict[str, torch.Tensor] = self._engine(batch)
        return scalars

    def precision(self) -> torch.autocast:
        """A block whose matrix products run in the configured precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._config.dtype == "bf16")

    def evaluate(self, batch: Batch, level: float) -> dict[str, torch.Tensor]:
        """The objective's scalars of a batch at one noise level, without gradients; for every rank."""
        self._engine.eval()
        try:
            with torch.no_grad(), self.precision():
                scalars: dict[str, torch.Tensor] = self._engine(batch.to(self.device), level)
        finally:
            self._engine.train()
        return scalars

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulate gradients; DeepSpeed divides by the number of accumulated passes itself.

        A loss that is not finite makes the gradient NaN, so that no rank takes the step, without asking anybody.
        """
        sound = torch.where(loss.detach().isfinite(), 1.0, math.nan).to(loss.dtype)
        self._engine.backward(loss * sound)

    def step(self, learning_rate_scale: float) -> None:
        """Update at the accumulation's end, before it do nothing; call it after every backward."""
        for group, rate in zip(self._engine.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * learning_rate_scale
        self._engine.step()

    def average(self, step: int) -> None:
        """Have the moving average, where there is one, follow the weights after ``step`` updates."""
        if self._ema is not None:
            self._ema.update(step, self._fragments())

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block the model computes with the averaged weights, if there are any; for every rank."""
        if self._ema is None:
            yield
            return
        self._swap(self._ema)
        try:
            yield
        finally:
            self._swap(self._ema)

    def mean(self, parts: Sequence[Mapping[str, torch.Tensor]], flag: bool) -> tuple[dict[str, float], bool]:
        """Means of named scalars over accumulated passes and ranks, and whether any rank raised its flag.

        A pair of a sum and a count is added up and divided, or left out where nothing was counted. One all-reduce
        a step: what the ranks must agree on travels with what they log.
        """
        share = 1 / (len(parts) * dist.get_world_size())
        totals = self._added(parts, share, flag)
        flags = totals.pop("")[0]
        means = {name: values[0] for name, values in totals.items() if len(values) == 1}
        pairs = {name: (values[0], values[1]) for name, values in totals.items() if len(values) == 2}
        return means | divided(pairs), flags > 0

    def _added(
        self, parts: Sequence[Mapping[str, torch.Tensor]], share: float, flag: bool
    ) -> dict[str, list[float]]:
        """Sums over passes and ranks, scalars times ``share``, pairs as they are; under no name the flags."""
        names = sorted(parts[0])
        sizes = [1, *(parts[0][name].numel() for name in names)]
        flat = [torch.cat([part[n].float().reshape(-1) for n in names]) for part in parts] if names else []
        shares = [share if parts[0][n].ndim == 0 else 1.0 for n in names for _ in range(parts[0][n].numel())]
        weights = torch.tensor(shares, device=self.device)
        raised = torch.tensor([float(flag)], device=self.device)
        total = torch.cat([raised, *([torch.stack(flat).sum(0) * weights] if flat else [])])
        dist.all_reduce(total)
        values = torch.split(total, sizes)
        return {name: value.tolist() for name, value in zip(["", *names], values, strict=True)}

    def gradient_norm(self) -> float:
        """L2 norm of the last update's gradient before clipping; infinite where the gradient was not finite."""
        norm = self._finite.norm if self._finite else self._engine.get_global_grad_norm()
        return math.nan if norm is None else float(norm)

    def copy(self, folder: Path) -> Callable[[], None]:
        """Copy this process's share of parameters (trainable ones), optimizer and average to host memory.

        Returns:
            What writes it below ``folder``, in this thread or another.
        """
        self._engine.save_checkpoint(str(folder), tag=TAG, save_latest=False, exclude_frozen_parameters=True)
        files, rank = self._engine.checkpoint_engine.take(), dist.get_rank()
        shapes = {name: list(shape) for name, shape in self._shapes().items()}
        ours = self._ema.parts() if self._ema and (rank == 0 or self._config.zero_stage > 0) else []
        averages = [replace(part, values=to_host(part.values)) for part in ours]

        def write() -> None:
            for state, path in files:
                torch.save(state, path)
            if averages:
                save_fragments(averages, folder / TAG / NAME.format(rank=rank))
            if rank == 0:
                write_text(folder / TAG / SHAPES, json.dumps(shapes, indent=1))

        return write

    def load(self, folder: Path) -> None:
        """Read what ``copy`` gave, or, for a universal engine, what ``make_universal`` made of it.

        Raises:
            InputError: it holds what could run code, or is of another model.
        """
        self._check_shapes(folder)
        tag = UNIVERSAL if self._universal else TAG
        with _plain_records_only(folder):
            path, _ = self._engine.load_checkpoint(str(folder), tag=tag, load_module_strict=False)
        if path is None:
            raise RuntimeError(f"DeepSpeed found no checkpoint in {folder / tag}")
        if self._ema is not None:
            self._ema.load(folder / TAG)

    def _fragments(self) -> list[Fragment]:
        return list(fragments(self._engine.module, self._engine.optimizer))

    def _swap(self, ema: Ema) -> None:
        """Exchange weights and average, and have the model follow its optimizer's master weights."""
        optimizer = self._engine.optimizer
        if self._config.zero_stage == 3:
            optimizer._partition_all_parameters()
        ema.exchange(self._fragments())
        if self._config.zero_stage == 3:
            for group in range(len(optimizer.fp16_groups)):
                optimizer._reassign_or_swap_out_partitioned_parameters(group)
            if kept := optimizer.persistent_parameters:
                kept[0].all_gather(kept)
        elif self._config.zero_stage > 0:
            optimizer.update_lp_params()
        elif self._config.dtype == "bf16":
            for lows, highs in zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True):
                torch._foreach_copy_([low.data for low in lows], [high.data for high in highs])

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Whole shapes of the trained parameters by name."""
        named = self._engine.module.named_parameters()
        return {name: tuple(getattr(p, "ds_shape", p.shape)) for name, p in named if p.requires_grad}

    def _check_shapes(self, folder: Path) -> None:
        path, here = folder / TAG / SHAPES, self._shapes()
        if not path.is_file():  # of an older castbank
            return
        there = {name: tuple(shape) for name, shape in json.loads(path.read_text(encoding="utf-8")).items()}
        differing = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
        if differing:
            first = differing[0]
            raise InputError(
                f"checkpoint {str(folder)!r} is of another model: {len(differing)} of its parameters differ, "
                f"such as {first} (there {there.get(first, 'absent')}, here {here.get(first, 'absent')}); give the "
                "configuration it was written with, or another run="
            )


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
    """f32 values of the trained parameters, by name in the objective, read from a checkpoint by one process: their
    moving average where it holds one.

    Raises:
        InputError: it holds what could run code.
    """
    if averages := read_whole(folder / TAG):
        return averages
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
