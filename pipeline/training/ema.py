"""An exponential moving average of the trained parameters, each rank keeping that of its own part of them.

ZeRO leaves each rank a contiguous fragment of a parameter, or nothing; the average follows that cut, in fp32, and
is written down by parameter and offset, so that any other cut can be made from it: another number of ranks, another
stage, or the whole (for export). It keeps no counter: its warm-up is a function of the step.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from data_prep.records import InputError
from pipeline.config import EmaConfig

NAME = "ema-{rank:05d}.safetensors"
META = "fragments"  # its key in a file's metadata: parameter to [offset, *shape of the whole]


@dataclass(frozen=True)
class Fragment:
    """What a rank owns of one parameter: elements ``[start, start + n)`` of its row-major flattening.

    name: in the objective; shape: of the whole parameter; values: f32[n], the optimizer's own master weights (a
    view, except where they are offloaded).
    """

    name: str
    shape: tuple[int, ...]
    start: int
    values: torch.Tensor


def fragments(module: torch.nn.Module, optimizer: Any) -> Iterator[Fragment]:
    """This rank's fragments of all trained parameters, whatever ZeRO stage ``optimizer`` is of.

    Reads what DeepSpeed hangs on parameters: ``ds_id`` at stage 3, ``_hp_mapping`` at 1 and 2 (None where the rank
    has nothing), neither at stage 0, where every rank owns everything and bf16 has master weights in groups.
    """
    pairs = zip(getattr(optimizer, "fp16_groups", ()), getattr(optimizer, "fp32_groups", ()), strict=False)
    masters = {
        id(low): high for lows, highs in pairs for low, high in zip(lows, highs, strict=True)
    }  # stage 0, bf16
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        p: Any = parameter
        if hasattr(p, "ds_id"):
            yield _of_stage_3(name, p)
        elif hasattr(p, "_hp_mapping"):
            if p._hp_mapping is not None:
                start = p._hp_mapping.lp_fragment_address.start
                yield Fragment(name, tuple(p.shape), start, p._hp_mapping.get_hp_fragment().data)
        else:
            values = masters.get(id(p), p).data
            yield Fragment(name, tuple(p.shape), 0, values.view(-1))


def _of_stage_3(name: str, parameter: Any) -> Fragment:
    """All ranks have equally long parts; the last ones may reach beyond the parameter's end."""
    optimizer = parameter._z3_optimizer
    group, offset, length = optimizer.grad_position[optimizer.get_param_id(parameter)]
    if optimizer._swappable_optimizer_subgroup(group):  # on NVMe: a copy
        held = optimizer.get_local_fp32_param(parameter)
    else:
        held = optimizer.fp32_partitioned_groups_flat[group].narrow(0, offset, length)
    start = min(torch.distributed.get_rank() * held.numel(), parameter.ds_numel)
    count = min(held.numel(), parameter.ds_numel - start)
    return Fragment(name, tuple(parameter.ds_shape), start, held.data[:count])


def decay_at(step: int, config: EmaConfig) -> float:
    """Weight of the old average when ``step`` updates are done: (1 + n) / (10 + n) at first, so that it soon
    forgets the initial values, then ``decay``; to the power of the updates since the last time."""
    decay = min(config.decay, (1 + step) / (10 + step)) if config.warmup else config.decay
    return float(decay**config.every)


class Ema:
    """One rank's part of the average."""

    def __init__(self, config: EmaConfig, start: Iterable[Fragment]) -> None:
        """Begins as a copy of the parameters."""
        self._config = config
        self._parts = {part.name: _copied(part) for part in start}

    def update(self, step: int, now: Iterable[Fragment]) -> None:
        """Follow the parameters as they are when ``step`` updates are done."""
        if step % self._config.every:
            return
        values = {part.name: part.values for part in now}
        ours = [part.values for part in self._parts.values()]
        torch._foreach_lerp_(ours, [values[name] for name in self._parts], 1.0 - decay_at(step, self._config))

    def exchange(self, now: Iterable[Fragment]) -> None:
        """Put the average into the parameters and the parameters where the average was; again: as before."""
        for part in now:
            ours, held = self._parts[part.name].values, part.values.clone()
            part.values.copy_(ours)
            ours.copy_(held)

    def parts(self) -> list[Fragment]:
        """What this rank keeps; not to be written to."""
        return list(self._parts.values())

    def load(self, folder: Path) -> None:
        """Take this rank's fragments out of whatever files ``folder`` holds.

        Raises:
            InputError: they lack some of them.
        """
        for part in self._parts.values():
            part.values.fill_(math.nan)
        for found in read_fragments(folder):
            mine = self._parts.get(found.name)
            if mine is not None:
                _overlay(mine, found)
        missing = [name for name, part in self._parts.items() if part.values.isnan().any()]
        if missing:
            raise InputError(
                f"checkpoint {str(folder)!r}: no average (ema) of {', '.join(missing[:3])}; it was written with "
                "ema.decay=0, or is of another model"
            )


def save_fragments(parts: Sequence[Fragment], path: Path) -> None:
    """Write fragments to a file that says where each belongs."""
    places = {part.name: [part.start, *part.shape] for part in parts}
    tensors = {part.name: part.values.contiguous() for part in parts}
    save_file(tensors, path, metadata={META: json.dumps(places)})


def read_fragments(folder: Path) -> Iterator[Fragment]:
    """All fragments that are written below ``folder``."""
    for path in sorted(folder.glob("ema-*.safetensors")):
        with safe_open(path, framework="pt") as file:
            places = json.loads(file.metadata()[META])
            for name, (start, *shape) in places.items():
                yield Fragment(name, tuple(shape), start, file.get_tensor(name))


def read_whole(folder: Path) -> dict[str, torch.Tensor]:
    """Whole averaged parameters by name, put together of all ranks' files; empty where there is none."""
    whole: dict[str, torch.Tensor] = {}
    for part in read_fragments(folder):
        flat = whole.setdefault(part.name, torch.full((math.prod(part.shape),), math.nan)).view(-1)
        flat[part.start : part.start + part.values.numel()] = part.values
        whole[part.name] = flat.view(part.shape)
    return whole


def _copied(part: Fragment) -> Fragment:
    return Fragment(part.name, part.shape, part.start, part.values.detach().float().clone())


def _overlay(mine: Fragment, found: Fragment) -> None:
    """Copy what two fragments of one parameter have in common."""
    first = max(mine.start, found.start)
    last = min(mine.start + mine.values.numel(), found.start + found.values.numel())
    if first < last:
        taken = found.values[first - found.start : last - found.start]
        mine.values[first - mine.start : last - mine.start] = taken.to(mine.values.device)
