"""The group of a training's ranks: entered, left, and asked what every rank has."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from torch.distributed import Store  # type: ignore[attr-defined]

from pipeline.config import EngineConfig
from pipeline.ranks.rank import Rank, check_gpu


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
