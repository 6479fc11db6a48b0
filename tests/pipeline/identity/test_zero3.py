"""Identity in a Wan under ZeRO-3 on two processes, every parameter partitioned, against plain PyTorch in one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import torch

from pipeline import adapters
from pipeline import model as models
from pipeline.batch import Batch
from pipeline.config import EngineConfig, FamilyConfig, ModelConfig, OptimizerConfig
from pipeline.objective import objective
from pipeline.objective.objective import DiffusionObjective
from pipeline.ranks.joining import meet
from pipeline.ranks.launch import launch
from pipeline.ranks.rank import Rank
from pipeline.training import engine as engines
from pipeline.training.optimizer import adamw
from tests.property_table import Table

HEAVY = ("pipeline.training.engine", "diffusers", "transformers")
OPTIONS = OptimizerConfig(warmup_steps=1)
STEPS, SAMPLES = 4, 4
# DeepSpeed keeps parameters below 100,000 numbers whole, which are all of a tiny model's
PARTITIONED = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}


def objective_of(config: ModelConfig) -> tuple[DiffusionObjective, torch.optim.AdamW]:
    model = models.create(config, [], seed=1)
    adapters.apply(model.transformer, model.identity, config.adapter, seed=0)
    groups = adapters.trainable_groups(model.transformer, model.identity, config.adapter)
    return objective.build(config, model, seed=0), adamw(groups, OPTIONS)


def train(rank: Rank, config: ModelConfig, batches: list[Batch]) -> int:
    """Half of each batch; reports the mean losses over both ranks."""
    options = EngineConfig(zero_stage=3, timeout_s=120, deepspeed=PARTITIONED)
    engines.join(rank, meet(rank, options.join_timeout_s, "a test"), options)
    half, found = SAMPLES // 2, []
    engine = engines.Engine(*objective_of(config), options, half)
    for batch in batches:
        own = slice(half * rank.index, half * (rank.index + 1))
        given = {f.name: getattr(batch, f.name) for f in fields(batch)}
        rows = {name: value[own] for name, value in given.items() if value is not None}
        scalars = engine.forward(replace(batch, **rows))
        engine.backward(scalars["loss"])
        engine.step(1.0)
        found.append(engine.mean([scalars], False)[0])
    rank.report(found)
    engines.leave()
    return 0


def reference(config: ModelConfig, batches: list[Batch]) -> list[dict[str, float]]:
    made, optimizer = objective_of(config)
    found = []
    for batch in batches:
        scalars = made(batch)
        optimizer.zero_grad()
        scalars["loss"].backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), EngineConfig().gradient_clipping)
        optimizer.step()
        found.append({name: value.item() for name, value in scalars.items() if value.ndim == 0})
    return found


def test_two_processes_follow_the_curve_of_one(
    family_config: Callable[[str], FamilyConfig],
    model_config: ModelConfig,
    make_batch: Callable[..., Batch],
    table: Table,
    tmp_path: Path,
) -> None:
    config = replace(model_config, family=family_config("wan t2v"))
    batches = [
        replace(
            (made := make_batch(SAMPLES, seed=step)),
            video=made.video.repeat(1, 1, 3, 1, 1),
            label_map=made.label_map.repeat(1, 3, 1, 1),
            positions=torch.arange(SAMPLES) + SAMPLES * step,
        )
        for step in range(STEPS)
    ]
    reports: list[list[dict[str, float]]] = []
    assert launch(2, train, (config, batches), tmp_path / "logs", reports.append, HEAVY) == 0
    expected = reference(config, batches)
    assert len(reports) == 2 and reports[0] == reports[1]
    gaps = [
        abs(mine[name] - value)
        for mine, one in zip(reports[0], expected, strict=True)
        for name, value in one.items()
    ]
    moved = abs(expected[0]["loss"] - expected[-1]["loss"])
    table.note("9 ZeRO-3, 2 processes: losses of 4 steps", "wan t2v", max(gaps))
    assert max(gaps) < 1e-4 < moved
