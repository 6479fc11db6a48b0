"""The small regression trained by real processes under DeepSpeed, from and to a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline.config import EngineConfig
from pipeline.ranks.joining import meet
from pipeline.ranks.launch import launch
from pipeline.ranks.rank import Rank
from pipeline.training.engine import Engine, join, leave, make_universal, trained_parameters
from pipeline.training.optimizer import adamw, learning_rate_scale
from tests.small_regression import HEAVY, OPTIONS, RATE, STEPS, Regression, batch_of


def train(rank: Rank, config: EngineConfig, steps: tuple[int, int], load: Path | None, save: Path) -> int:
    """Steps ``[first, last)`` of 8 samples each over all ranks; the losses are reported by rank 0."""
    join(rank, meet(rank, config.join_timeout_s, "a test"), config)
    module = Regression()
    groups = [{"params": [p for p in module.parameters() if p.requires_grad], "lr": RATE}]
    micro = 8 // rank.world // config.accumulation
    universal = load is not None and rank.world != 2
    if universal:
        make_universal(load)
    engine = Engine(module, adamw(groups, OPTIONS), config, micro, universal)
    if load is not None:
        engine.load(load)
    for step in range(*steps):
        for part in range(config.accumulation):
            first = 8 * step + (part * rank.world + rank.index) * micro
            scalars = engine.forward(batch_of(list(range(first, first + micro))))
            engine.backward(scalars["loss"])
            engine.step(learning_rate_scale(step, STEPS, OPTIONS))
    engine.copy(save)()
    rank.report((rank.index, engine.gradient_norm()))
    leave()
    return 0


def run(
    config: EngineConfig, processes: int, tmp: Path, steps=(0, STEPS), load=None
) -> dict[str, torch.Tensor]:
    reports: list[object] = []
    save = tmp / f"after-{steps[1]}-{processes}"
    code = launch(processes, train, (config, steps, load, save), tmp / "logs", reports.append, HEAVY)
    assert code == 0
    assert sorted(index for index, _ in reports) == list(range(processes))
    return trained_parameters(save, config.zero_stage)
