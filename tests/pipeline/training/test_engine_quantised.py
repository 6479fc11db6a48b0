"""A LoRA on a quantised base under DeepSpeed: two processes, stages 0 to 2, resumed, against the base in full."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import adapters
from pipeline import model as models
from pipeline.batch import Batch
from pipeline.config import AdapterConfig, EngineConfig, ModelConfig, OptimizerConfig
from pipeline.families.pretrained import DTYPES
from pipeline.model import Model
from pipeline.objective import objective
from pipeline.ranks.joining import meet
from pipeline.ranks.launch import launch
from pipeline.ranks.rank import Rank
from pipeline.training.engine import Engine, join, leave, trained_parameters
from pipeline.training.optimizer import adamw
from tests.small_regression import HEAVY, difference

pytest.importorskip("torchao")
STEPS, HALF = 4, 2
LORA = AdapterConfig(kind="lora", rank=2, learning_rate=1e-3)
FEW = [EngineConfig(zero_stage=2, dtype="bf16", base_precision="int8", activation_checkpointing=True)]
ALL = [
    EngineConfig(zero_stage=stage, dtype=dtype, base_precision=kind, activation_checkpointing=checkpointing)
    for stage, dtype, kind, checkpointing in itertools.product(
        (0, 1, 2), ("fp32", "bf16"), ("int8", "nf4"), (False, True)
    )
]
LIMITS = {"int8": 2e-3, "nf4": 5e-3}  # of the loss from that of the base in full


def engine_of(folder: Path, config: EngineConfig) -> tuple[Engine, objective.DiffusionObjective]:
    model = models.load(folder, DTYPES[config.dtype])
    adapters.apply(model.transformer, model.identity, LORA, 0, config.base_precision)
    if config.activation_checkpointing:
        model.checkpoint_activations()
    made = objective.build(model.config, model, seed=0)
    groups = adapters.trainable_groups(model.transformer, model.identity, LORA)
    return Engine(made, adamw(groups, OptimizerConfig()), config, 2), made


def step(engine: Engine, batch: Batch, rank: Rank) -> float:
    cut = slice(2 * rank.index, 2 * rank.index + 2)
    own = replace(batch, **{n: v[cut] for n, v in vars(batch).items() if isinstance(v, torch.Tensor | tuple)})
    scalars = engine.forward(own)
    engine.backward(scalars["loss"])
    engine.step(1.0)
    return engine.mean([{"loss": scalars["loss"].detach()}], False)[0]["loss"]


def train_cases(rank: Rank, cases: list[EngineConfig], folder: Path) -> int:
    """Each case whole, then its second half again from the checkpoint at half; and with the base in full."""
    join(rank, meet(rank, 120, "a test"), EngineConfig(timeout_s=300))
    batches: list[Batch] = torch.load(folder / "batches.pt", weights_only=False)
    for number, case in enumerate(cases):
        saved = folder / f"case-{number}"
        losses: dict[str, list[float]] = {}
        for name, config in (("quantised", case), ("full", replace(case, base_precision="dtype"))):
            engine, _ = engine_of(folder / "model", config)
            losses[name] = []
            for index, batch in enumerate(batches):
                if index == HALF and name == "quantised":
                    engine.copy(saved / "half")()
                losses[name].append(step(engine, batch, rank))
            engine.copy(saved / name)()
        resumed, made = engine_of(folder / "model", case)
        resumed.load(saved / "half")
        losses["resumed"] = [step(resumed, batch, rank) for batch in batches[HALF:]]
        resumed.copy(saved / "resumed")()
        tables = [p.dtype for name, p in made.named_parameters() if name.endswith("scale_shift_table")]
        if rank.index == 0:
            rank.report((number, losses, set(tables)))
    leave()
    return 0


@pytest.mark.parametrize(
    "cases", [pytest.param(FEW, id="few"), pytest.param(ALL, id="all", marks=pytest.mark.slow)]
)
def test_it_learns_near_the_base_in_full_and_resumes_exactly(
    cases: list[EngineConfig],
    new_model: Callable[..., Model],
    make_batch: Callable[..., Batch],
    model_config: ModelConfig,
    tmp_path: Path,
) -> None:
    with torch.no_grad():
        models.save(new_model(config=model_config), tmp_path / "model")
    batches = [replace(make_batch(4, seed=k), positions=torch.arange(4) + 4 * k) for k in range(STEPS)]
    torch.save(batches, tmp_path / "batches.pt")
    heard: list[Any] = []
    assert launch(2, train_cases, (cases, tmp_path), tmp_path / "logs", heard.append, HEAVY) == 0
    assert [number for number, *_ in heard] == list(range(len(cases)))
    for case, (number, losses, tables) in zip(cases, heard, strict=True):
        saved = tmp_path / f"case-{number}"
        gap = max(abs(a - b) / b for a, b in zip(losses["quantised"], losses["full"], strict=True))
        print(
            f"\nZeRO-{case.zero_stage} {case.dtype} {case.base_precision:4} "
            f"{'checkpointing' if case.activation_checkpointing else '-':13} off by {gap:.1e}",
            end="",
        )
        assert gap <= LIMITS[case.base_precision]
        assert losses["resumed"] == losses["quantised"][HALF:]
        trained = [trained_parameters(saved / name, case.zero_stage) for name in ("quantised", "resumed")]
        assert difference(*trained) == 0
        assert all(".lora_" in name or ".identity." in name for name in trained[0])
        assert tables == {torch.float32}  # as the class wants them, in bf16 too
        shutil.rmtree(saved)
