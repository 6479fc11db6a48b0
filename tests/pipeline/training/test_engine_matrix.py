"""ZeRO stage × precision × what is trained × activation checkpointing: two processes with a small real model
against plain PyTorch in one; the table of differences is printed (pytest -s)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import adapters
from pipeline import model as models
from pipeline.batch import Batch
from pipeline.config import AdapterConfig, EngineConfig, ModelConfig, OptimizerConfig
from pipeline.model import Model
from pipeline.objective import objective
from pipeline.ranks.joining import meet
from pipeline.ranks.launch import launch
from pipeline.ranks.rank import Rank
from pipeline.training.engine import Engine, join, leave
from pipeline.training.optimizer import adamw, learning_rate_scale
from tests.small_regression import HEAVY

STEPS, OPTIONS = 4, OptimizerConfig(warmup_steps=2)
ADAPTERS = {
    "full": AdapterConfig(),
    "lora": AdapterConfig(kind="lora", rank=4),
    "none": AdapterConfig(kind="none"),
}


@dataclass(frozen=True)
class Case:
    """One cell of the matrix."""

    stage: int
    dtype: str
    kind: str
    checkpointing: bool

    def __str__(self) -> str:
        return f"ZeRO-{self.stage} {self.dtype} {self.kind:4} {'checkpointing' if self.checkpointing else '-':13}"


FEW = [Case(2, "fp32", "lora", True), Case(3, "fp32", "full", True), Case(3, "bf16", "none", False)]
ALL = [
    Case(stage, dtype, kind, checkpointing)
    for stage, dtype, kind, checkpointing in itertools.product(
        range(4), ("fp32", "bf16"), ("full", "lora"), (False, True)
    )
]
LIMITS = {
    "fp32": 1e-6,
    "bf16": 0.03,
}  # of the loss; bf16 has 8 bits, and at stage 0 its gradients are summed in it


def objective_of(folder: Path, kind: str) -> objective.DiffusionObjective:
    model = models.load(folder)
    adapters.apply(model.transformer, model.identity, ADAPTERS[kind], seed=0)
    return objective.build(model.config, model, seed=0)


def groups_of(model: Model, kind: str) -> list[dict[str, Any]]:
    return adapters.trainable_groups(model.transformer, model.identity, ADAPTERS[kind])


def share_of(batch: Batch, index: int, world: int) -> Batch:
    """The part of a batch that a rank takes."""
    each = len(batch.positions) // world
    cut = slice(index * each, (index + 1) * each)
    values = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return replace(batch, **{name: value[cut] for name, value in values.items() if value is not None})


def train_cases(rank: Rank, cases: list[Case], folder: Path) -> int:
    """Every case from the same start on the same batches; reports its losses."""
    config = EngineConfig(timeout_s=120)
    join(rank, meet(rank, config.join_timeout_s, "a test"), config)
    batches: list[Batch] = torch.load(folder / "batches.pt", weights_only=False)
    for case in cases:
        made = objective_of(folder, case.kind)
        if case.checkpointing:
            made.model.checkpoint_activations()
        options = EngineConfig(zero_stage=case.stage, dtype=case.dtype)
        optimizer = adamw(groups_of(made.model, case.kind), OPTIONS)
        engine = Engine(made, optimizer, options, len(batches[0].positions) // rank.world)
        losses = []
        for step, batch in enumerate(batches):
            scalars = engine.forward(share_of(batch, rank.index, rank.world))
            engine.backward(scalars["loss"])
            engine.step(learning_rate_scale(step, STEPS, OPTIONS))
            losses.append(engine.mean([{"loss": scalars["loss"].detach()}], False)[0]["loss"])
        if rank.index == 0:
            rank.report((case, losses))
    leave()
    return 0


def plain_losses(folder: Path, kind: str) -> list[float]:
    """The same training by PyTorch alone, in fp32, in this process."""
    made, batches = objective_of(folder, kind), torch.load(folder / "batches.pt", weights_only=False)
    optimizer = adamw(groups_of(made.model, kind), OPTIONS)
    rates = [group["lr"] for group in optimizer.param_groups]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    losses = []
    for step, batch in enumerate(batches):
        loss = made(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, EngineConfig().gradient_clipping)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * learning_rate_scale(step, STEPS, OPTIONS)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize(
    "cases", [pytest.param(FEW, id="few"), pytest.param(ALL, id="all", marks=pytest.mark.slow)]
)
def test_two_processes_learn_what_one_does(
    cases: list[Case],
    new_model: Callable[..., Model],
    make_batch: Callable[..., Batch],
    model_config: ModelConfig,
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    folder = tmp_path / "model"
    with torch.no_grad():
        models.save(new_model(config=model_config), folder)
    batches = [replace(make_batch(4, seed=k), positions=torch.arange(4) + 4 * k) for k in range(STEPS)]
    torch.save(batches, folder / "batches.pt")
    heard: list[tuple[Case, list[float]]] = []
    assert launch(2, train_cases, (cases, folder), tmp_path / "logs", heard.append, HEAVY) == 0
    expected = {kind: plain_losses(folder, kind) for kind in {case.kind for case in cases}}
    print(
        "\nlargest difference of a loss from one process in fp32, of", {k: v[-1] for k, v in expected.items()}
    )
    gaps = {
        case: max(abs(a - b) / b for a, b in zip(losses, expected[case.kind], strict=True))
        for case, losses in heard
    }
    for case, gap in gaps.items():
        print(f"  {case}  {gap:.1e}")
    assert list(gaps) == cases
    assert all(gap <= LIMITS[case.dtype] for case, gap in gaps.items())
