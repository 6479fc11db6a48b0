"""Spikes against a plain definition; a batch that is not finite leaves the weights as they were, at every stage."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config import EngineConfig, StabilityConfig
from pipeline.ranks.joining import meet
from pipeline.ranks.launch import launch
from pipeline.ranks.rank import Rank
from pipeline.training.engine import Engine, join, leave
from pipeline.training.optimizer import FiniteSteps, adamw
from pipeline.training.stability import NonFinite, Pass, SpikeDetector, nonfinite, spike
from tests.small_regression import HEAVY, OPTIONS, RATE, Regression, batch_of

CASES = [(stage, dtype) for stage in range(4) for dtype in ("fp32", "bf16")]
PASSES = [Pass(0, ("a", "b"), True), Pass(1, ("c", "d"), False)]


def test_a_spike_is_what_the_robust_score_says() -> None:
    rng = np.random.default_rng(0)
    losses = list(1.0 + 0.1 * rng.standard_normal(200))
    losses[150] = 2.5
    detector = SpikeDetector(StabilityConfig(spike_score=8.0, spike_window=50))
    found = {step: score for step, loss in enumerate(losses) if (score := detector.score(loss))}
    window = np.array(losses[100:150])
    middle = np.median(window)
    expected = (2.5 - middle) / (1.4826 * np.median(np.abs(window - middle)))
    assert found == {150: pytest.approx(expected)}


def test_few_or_equal_losses_make_no_spike() -> None:
    detector = SpikeDetector(StabilityConfig())
    assert not any(detector.score(loss) for loss in [1.0, 50.0, *[1.0] * 30, 1.05])
    off = SpikeDetector(StabilityConfig(spike_score=0.0))
    assert not any(off.score(loss) for loss in [*[1.0] * 30, 99.0])


def test_skipping_has_an_end_and_starts_anew_after_a_good_step() -> None:
    assert NonFinite(StabilityConfig(on_nonfinite="stop")).stops()
    rule = NonFinite(StabilityConfig(on_nonfinite="skip", max_skipped=2))
    assert [rule.stops(), rule.stops()] == [False, False]
    rule.fine()
    assert [rule.stops(), rule.stops(), rule.stops()] == [False, False, True]


def test_the_pass_whose_loss_it_was_is_blamed_or_all_where_it_was_the_gradient() -> None:
    incident = nonfinite(7, {"loss": math.nan, "loss_mask": 0.5}, PASSES)
    assert incident.record["samples"] == [{"rank": 1, "keys": ["c", "d"]}]
    assert incident.record["scalars"] == {"loss": "nan", "loss_mask": 0.5}
    assert (
        incident.text
        == "step 7: the loss is not finite (samples c on rank 1, d on rank 1); kept in nonfinite.jsonl"
    )
    by_gradient = nonfinite(7, {"loss": 1.0}, [replace(found, finite=True) for found in PASSES])
    assert by_gradient.record["what"] == "gradient"
    assert [row["rank"] for row in by_gradient.record["samples"]] == [0, 1]
    assert "a on rank 0, b on rank 0, c on rank 1" in spike(9, 12.0, {"loss": 3.0}, PASSES).text


def train_with_a_bad_batch(rank: Rank) -> int:
    """A good step, one in which the second rank's loss is infinite, a good one; reports which were made."""
    config = EngineConfig(timeout_s=60)
    join(rank, meet(rank, config.join_timeout_s, "a test"), config)
    for stage, dtype in CASES:
        module = Regression()
        groups = [{"params": [p for p in module.parameters() if p.requires_grad], "lr": RATE}]
        engine = Engine(module, adamw(groups, OPTIONS), EngineConfig(zero_stage=stage, dtype=dtype), 4)
        made, losses = [], []
        for step in range(3):
            loss = engine.forward(batch_of([4 * rank.index + k for k in range(4)]))["loss"]
            losses.append(float(loss))
            engine.backward(loss + math.inf if step == 1 and rank.index == 1 else loss)
            engine.step(1.0)
            made.append(engine.updated)
        rank.report((rank.index, stage, dtype, made, losses, engine.gradient_norm()))
    leave()
    return 0


def test_one_bad_pass_leaves_every_ranks_weights_as_they_were(tmp_path: Path) -> None:
    reports: list[tuple[int, int, str, list[bool], list[float], float]] = []
    assert launch(2, train_with_a_bad_batch, (), tmp_path, reports.append, HEAVY) == 0
    assert len(reports) == 2 * len(CASES)
    for _, _, _, made, losses, norm in reports:
        assert made == [True, False, True]
        assert losses[1] == losses[2] != losses[0]
        assert 0 < norm < 100


def test_at_stage_0_gradients_are_clipped_and_a_bad_one_changes_no_moment() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimizer = adamw([{"params": [parameter], "lr": 0.1}], OPTIONS)
    finite = FiniteSteps(optimizer, 1.0)
    parameter.grad = torch.tensor([3.0, 4.0, 0.0])
    optimizer.step()
    assert finite.norm == 5.0
    moment = optimizer.state[parameter]["exp_avg"].clone()
    torch.testing.assert_close(moment, torch.tensor([0.06, 0.08, 0.0]))
    before = parameter.detach().clone()
    parameter.grad = torch.tensor([math.inf, 0.0, 1.0])
    optimizer.step()
    assert torch.equal(parameter, before)
    assert torch.equal(optimizer.state[parameter]["exp_avg"], moment)
