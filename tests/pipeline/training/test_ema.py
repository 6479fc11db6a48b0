"""The moving average, kept in parts by the ranks, against one kept whole; cut anew; swapped in and out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data_prep.records import InputError
from pipeline.config import EmaConfig, EngineConfig
from pipeline.ranks.joining import meet
from pipeline.ranks.launch import launch
from pipeline.ranks.rank import Rank
from pipeline.training.ema import Ema, Fragment, decay_at, read_whole, save_fragments
from pipeline.training.engine import Engine, join, leave, make_universal, trained_parameters
from pipeline.training.optimizer import adamw, learning_rate_scale
from tests.small_regression import (
    HEAVY,
    OPTIONS,
    RATE,
    SAMPLES,
    STEPS,
    Regression,
    batch_of,
    difference,
    reference,
    trained,
)

EMA = EmaConfig(decay=0.6, every=1)
Runs = tuple[Path, dict[str, list[tuple[str, float, float, float]]]]
LIMITS = {"fp32": 1e-6, "bf16": 3e-2}  # of bf16 the weights themselves are as far off: 0.01, at stage 0 0.026
FEW = [(2, "fp32"), (3, "fp32")]
ALL = [(0, "fp32"), (1, "fp32"), (2, "fp32"), (3, "fp32"), (0, "bf16"), (2, "bf16"), (3, "bf16")]
Runs = tuple[Path, dict[str, list[tuple[str, float, float, float]]]]
LIMITS = {"fp32": 1e-6, "bf16": 3e-2}  # of bf16 the weights themselves are as far off: 0.01, at stage 0 0.026
CASES = [(0, "fp32"), (1, "fp32"), (2, "fp32"), (3, "fp32"), (0, "bf16"), (2, "bf16"), (3, "bf16")]


def train_all(rank: Rank, cases: list[tuple[int, str]], first: Path | None, root: Path, half: Path) -> int:
    """Every stage and precision: steps from nothing, saved in the middle and at the end, or, where another
    number of ranks has done the ``first`` half, the second. Reports losses before, with the average, and after."""
    config = EngineConfig(timeout_s=60)
    join(rank, meet(rank, config.join_timeout_s, "a test"), config)
    for stage, dtype in cases:
        case = f"{stage}-{dtype}"
        engine = engine_of(rank, EngineConfig(zero_stage=stage, dtype=dtype), first / case if first else None)
        for step in range(STEPS // 2 if first else 0, STEPS):
            advance(engine, rank, step)
            if step + 1 == STEPS // 2:
                engine.copy(half / case)()
        before = loss_of(engine)
        with engine.averaged():
            inside = loss_of(engine)
        rank.report((rank.index, case, before, inside, loss_of(engine)))
        engine.copy(root / case)()
    leave()
    return 0


def engine_of(rank: Rank, config: EngineConfig, load: Path | None) -> Engine:
    module, universal = Regression(), load is not None and config.zero_stage > 0
    if load is not None and universal:
        make_universal(load)
    groups = [{"params": [p for p in module.parameters() if p.requires_grad], "lr": RATE}]
    engine = Engine(module, adamw(groups, OPTIONS), config, SAMPLES // rank.world, universal, EMA)
    if load is not None:
        engine.load(load)
    return engine


def advance(engine: Engine, rank: Rank, step: int) -> None:
    micro = SAMPLES // rank.world
    start = SAMPLES * step + rank.index * micro
    engine.backward(engine.forward(batch_of(list(range(start, start + micro))))["loss"])
    engine.step(learning_rate_scale(step, STEPS, OPTIONS))
    assert engine.updated
    engine.average(step + 1)


def loss_of(engine: Engine) -> float:
    with torch.no_grad():
        return float(engine.forward(batch_of([1, 2, 3]))["loss"])


def averages() -> dict[str, torch.Tensor]:
    """The average of the plain training, in double precision, by its definition."""
    kept = {name: p.double() for name, p in trained(Regression()).items()}

    def follow(step: int, module: torch.nn.Module) -> None:
        decay = min(EMA.decay, (1 + step) / (10 + step))
        for name, p in trained(module).items():
            kept[name] = decay * kept[name] + (1 - decay) * p.double()

    reference(follow)
    return {name: value.float() for name, value in kept.items()}


@pytest.fixture(
    scope="module", params=[pytest.param(FEW, id="few"), pytest.param(ALL, id="all", marks=pytest.mark.slow)]
)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """By numbers of ranks: ``two-one`` is one that goes on from where two were in the middle."""
    root, losses = tmp_path_factory.mktemp("ema"), {}
    whole = [("two", 2, None), ("two-one", 1, "two")]
    for name, processes, first in (
        whole if request.param == FEW else [*whole, ("one", 1, None), ("one-two", 2, "one")]
    ):
        reports: list[tuple[int, str, float, float, float]] = []
        args = (request.param, root / f"half-{first}" if first else None, root / name, root / f"half-{name}")
        assert launch(processes, train_all, args, root / "logs", reports.append, HEAVY) == 0
        losses[name] = [report[1:] for report in reports]
    return root, losses


def test_the_average_in_parts_is_the_average_of_the_whole(runs: Runs) -> None:
    root, expected = runs[0], averages()
    print("\naverage: largest difference by ranks, ZeRO stage and precision")
    for name, of_run in runs[1].items():
        for case in sorted({case for case, *_ in of_run}):
            gap = difference(trained_parameters(root / name / case, int(case[0])), expected)
            print(f"  {name:8} {case}  {gap:.1e}")
            assert gap <= LIMITS[case[2:]]
    assert difference(expected, reference()) > 1e-3  # the average is not the weights


def test_it_is_swapped_in_and_out_exactly(runs: Runs) -> None:
    module = Regression()
    module.load_state_dict(averages(), strict=False)
    expected = float(module(batch_of([1, 2, 3]))["loss"].detach())
    for case, before, inside, after in (found for of_run in runs[1].values() for found in of_run):
        assert before == after
        assert inside != before
        assert case.endswith("bf16") or inside == pytest.approx(expected, abs=1e-6)


def test_another_cut_is_made_from_the_same_files(tmp_path: Path) -> None:
    whole = torch.arange(10.0).view(2, 5)
    for rank, (start, end) in enumerate(((0, 4), (4, 7), (7, 10))):
        part = Fragment("layer.weight", (2, 5), start, whole.view(-1)[start:end])
        save_fragments([part], tmp_path / f"ema-{rank:05d}.safetensors")
    assert torch.equal(read_whole(tmp_path)["layer.weight"], whole)
    ema = Ema(EMA, [Fragment("layer.weight", (2, 5), 2, torch.zeros(6))])
    ema.load(tmp_path)
    assert torch.equal(ema.parts()[0].values, torch.arange(2.0, 8.0))
    other = Ema(EMA, [Fragment("layer.bias", (5,), 0, torch.zeros(5))])
    with pytest.raises(InputError, match=r"no average \(ema\) of layer.bias"):
        other.load(tmp_path)


def test_the_decay_warms_up_and_looking_less_often_weighs_more() -> None:
    config = EmaConfig(decay=0.999)
    assert [decay_at(step, config) for step in (1, 90)] == [2 / 11, 91 / 100]
    assert decay_at(10**6, config) == 0.999
    assert decay_at(1, EmaConfig(decay=0.9, warmup=False, every=3)) == pytest.approx(0.9**3)
    ema = Ema(EmaConfig(decay=0.5, warmup=False, every=2), [Fragment("a", (1,), 0, torch.zeros(1))])
    for step in (1, 2, 3):
        ema.update(step, [Fragment("a", (1,), 0, torch.ones(1))])
    assert float(ema.parts()[0].values) == 0.75  # once, with 0.5 squared
