"""What a checkpoint costs a training, and ZeRO-2 beside PyTorch's own data parallelism; ratios within one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pipeline import adapters
from pipeline import model as models
from pipeline.batch import Batch
from pipeline.config import CheckpointConfig, EmaConfig, EngineConfig, ModelConfig, OptimizerConfig
from pipeline.objective import objective
from pipeline.ranks.joining import meet
from pipeline.ranks.launch import launch
from pipeline.ranks.rank import Rank
from pipeline.training.checkpoints import Checkpoints, Peers, Progress
from pipeline.training.engine import Engine, gather, gathering, join, leave
from pipeline.training.optimizer import adamw
from tests.small_regression import HEAVY

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]
FRAMES, HEIGHT, WIDTH, DIM, SAMPLES = 5, 96, 160, 512, 2
WARM, TIMED, ROUNDS = 2, 5, 3


def small_objective() -> objective.DiffusionObjective:
    """The tiny family as it comes: 3.3 M parameters and its identity network, all trained."""
    generator = torch.Generator().manual_seed(0)
    videos = [torch.rand(FRAMES, 3, HEIGHT, WIDTH, generator=generator) * 2 - 1 for _ in range(4)]
    config = ModelConfig()
    model = models.create(config, videos, seed=0)
    adapters.apply(model.transformer, model.identity, config.adapter, seed=0)
    return objective.build(config, model, seed=0)


def small_batch(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    references = torch.nn.functional.normalize(torch.randn(SAMPLES, 2, 4, DIM, generator=generator), dim=-1)
    label_map = torch.zeros(SAMPLES, FRAMES, HEIGHT, WIDTH, dtype=torch.uint8)
    label_map[..., 10:60, 10:60] = 1
    label_map[..., 10:60, 90:140] = 2
    filled = torch.ones(SAMPLES, 2, dtype=torch.bool)
    return Batch(
        video=torch.rand(SAMPLES, 3, FRAMES, HEIGHT, WIDTH, generator=generator) * 2 - 1,
        label_map=label_map,
        references=references,
        reference_mask=filled[..., None].expand(-1, -1, 4),
        own_faces=references[:, :, 0],
        own_mask=filled,
        cast_mask=filled,
        cast=(("a", "b"),) * SAMPLES,
        captions=("Anna talks to Ben",) * SAMPLES,
        keys=("x",) * SAMPLES,
        positions=torch.arange(SAMPLES) + seed * SAMPLES,
    )


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def engine_step(engine: Engine, batch: Batch) -> None:
    engine.backward(engine.forward(batch)["loss"])
    engine.step(1.0)


def zero_2(ema: EmaConfig) -> Engine:
    made = small_objective()
    groups = adapters.trainable_groups(made.model.transformer, made.model.identity, ModelConfig().adapter)
    return Engine(made, adamw(groups, OptimizerConfig()), EngineConfig(zero_stage=2), SAMPLES, ema=ema)


def checkpointing(rank: Rank, folder: Path) -> int:
    """Reports the seconds of a step and of the wait for a checkpoint, in front of training and behind its back."""
    join(rank, meet(rank, 300, "a bench"), EngineConfig())
    engine, batch = zero_2(EmaConfig(decay=0.99)), small_batch(rank.index)
    behind = gathering(EngineConfig())
    for _ in range(WARM):
        engine_step(engine, batch)
    steps_s = [seconds(lambda: engine_step(engine, batch)) for _ in range(TIMED)]
    waits: dict[str, list[float]] = {}
    for kind, peers in (
        ("waited for", Peers(rank.index, rank.world, gather)),
        ("behind", Peers(rank.index, rank.world, gather, behind)),
    ):
        with Checkpoints(folder / kind, CheckpointConfig(), peers) as checkpoints:
            for step in range(1, ROUNDS + 1):
                write = partial(checkpoints.write, Progress(step, step), engine.copy)
                waits.setdefault(kind, []).append(seconds(write))
                for _ in range(ROUNDS):  # meanwhile
                    engine_step(engine, batch)
                checkpoints.wait()
                dist.barrier()
    if rank.index == 0:
        rank.report((steps_s, waits))
    leave()
    return 0


def test_a_checkpoint_behind_trainings_back_costs_at_most_5_percent(tmp_path: Path) -> None:
    heard: list[tuple[list[float], dict[str, list[float]]]] = []
    assert launch(2, checkpointing, (tmp_path,), tmp_path / "logs", heard.append, HEAVY) == 0
    ((steps_s, waits),) = heard
    step_s, every = statistics.median(steps_s), CheckpointConfig().every_steps
    shares = {kind: statistics.median(times) / (every * step_s) for kind, times in waits.items()}
    print(f"\nstep {step_s:.3f} s; wait for a checkpoint {waits}; share at every {every} steps {shares}")
    assert shares["behind"] <= 0.05


def with_torch(kind: str) -> Callable[[Batch], None]:
    """A step of PyTorch's own data parallelism on the same model, with clipping as the engine does it."""
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    made: Any = small_objective()
    if kind == "FSDP2":
        for block in made.model.transformer.blocks:
            fully_shard(block)
        fully_shard(made)
        wrapped = made
    else:
        wrapped = DistributedDataParallel(made)
    parameters = [p for p in wrapped.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, 1e-4)

    def step(batch: Batch) -> None:
        wrapped(batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def side_by_side(rank: Rank) -> int:
    """Reports seconds per step of each, in turns, so that all meet the same disturbances."""
    join(rank, meet(rank, 300, "a bench"), EngineConfig())
    engine, batch = zero_2(EmaConfig()), small_batch(rank.index)
    steps: dict[str, Callable[[Batch], None]] = {
        "ZeRO-2": lambda batch: engine_step(engine, batch),
        "DDP": with_torch("DDP"),
        "FSDP2": with_torch("FSDP2"),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(WARM + ROUNDS * TIMED):
        for name, step in steps.items():
            dist.barrier()
            spent = seconds(partial(step, batch))
            if turn >= WARM:
                times[name].append(spent)
    if rank.index == 0:
        rank.report(times)
    leave()
    return 0


def test_zero_2_beside_ddp_and_fsdp2(tmp_path: Path) -> None:
    heard: list[dict[str, list[float]]] = []
    assert launch(2, side_by_side, (), tmp_path / "logs", heard.append, HEAVY) == 0
    medians = {name: statistics.median(times) for name, times in heard[0].items()}
    ratios = {name: medians["ZeRO-2"] / medians[name] for name in ("DDP", "FSDP2")}
    print(
        f"\nseconds a step {medians}; ZeRO-2 over DDP {ratios['DDP']:.2f}, over FSDP2 {ratios['FSDP2']:.2f}"
    )
    assert ratios["FSDP2"] <= 1.5
