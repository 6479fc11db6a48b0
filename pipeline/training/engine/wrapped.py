"""The DeepSpeed engine behind five verbs: forward, backward, step, copy, load.

ZeRO's stage, the precision and the accumulation are numbers in one dictionary; the learning rate is a pure
function of the step, so the engine carries no scheduler state.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine

from data_prep.records import InputError
from pipeline.batch import Batch
from pipeline.config import EmaConfig, EngineConfig
from pipeline.objective.curves import divided
from pipeline.training import nvme
from pipeline.training.checkpoints import write_text
from pipeline.training.ema import NAME, Ema, Fragment, fragments, save_fragments
from pipeline.training.engine.files import TAG, UNIVERSAL, plain_records_only
from pipeline.training.host_copy import to_host
from pipeline.training.optimizer import FiniteSteps
from pipeline.training.zero_config import plain, refusals_named, zero_config

SHAPES = "parameters.json"  # names and shapes of what was trained
NO_EMA = EmaConfig()


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
        InputError for keys of a user's that DeepSpeed refuses, and where this machine cannot offload as asked."""
        nvme.check(config)
        trained = (p for group in optimizer.param_groups for p in group["params"])
        options = zero_config(config, micro_batch, sum(p.numel() for p in trained))
        options["checkpoint"]["load_universal"] = universal
        self._config, self._universal = config, universal
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._finite = FiniteSteps(optimizer, config.gradient_clipping) if plain(config) else None
        kept = _full_precision(objective, config)
        with refusals_named(config):
            self._engine = deepspeed.initialize(model=objective, optimizer=optimizer, config=options)[0]
        for parameter, values in kept:
            parameter.data = values.to(parameter.device)
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
        with plain_records_only(folder):
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


def _full_precision(
    objective: torch.nn.Module, config: EngineConfig
) -> list[tuple[torch.nn.Parameter, torch.Tensor]]:
    """The frozen weights that the objective wants in fp32 in bf16 training too, with their values: DeepSpeed makes
    all bf16, and they are put back. Not at stage 3, which has cut them up by then."""
    wanted = getattr(objective, "full_precision", None)
    if wanted is None or config.dtype == "fp32" or config.zero_stage == 3:
        return []
    return [(parameter, parameter.data) for parameter in wanted()]
