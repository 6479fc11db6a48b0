"""ZeRO's shares of states against DeepSpeed's own estimators and defaults."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.config import EngineConfig
from pipeline.memory.states import MAX_LIVE, PERSISTENT, Counts, states
from pipeline.training.zero_config import REDUCE_BUCKET

NUMBERS = 1_600_000_000
COUNTS = Counts(NUMBERS, 0, 0)
BF16 = EngineConfig(dtype="bf16")


@pytest.mark.parametrize("gpus", [1, 8])
def test_stage_2_as_deepspeed_estimates_it(gpus: int) -> None:
    """Its 2 + 18/N bytes count all that is there while the optimizer steps, but AdamW's own 4 bytes."""
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    _, theirs = estimate_zero2_model_states_mem_needs(NUMBERS, gpus, 1, cpu_offload=False)
    ours = states(COUNTS, replace(BF16, zero_stage=2), gpus)
    assert ours.trained + ours.master + ours.moments + ours.step - 4 * NUMBERS // gpus == theirs


@pytest.mark.parametrize("gpus", [2, 8])
def test_stage_3_as_deepspeed_estimates_it(gpus: int) -> None:
    """Its 18/N bytes leave out the bf16 gradients, which are kept (counted in tests/bench/test_memory.py)."""
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs

    _, theirs, _ = estimate_zero3_model_states_mem_needs(
        NUMBERS, 0, gpus, 1, cpu_offload=False, cpu_offload_params=False
    )
    ours = states(COUNTS, replace(BF16, zero_stage=3), gpus)
    own_step = 4 * min(NUMBERS // gpus, MAX_LIVE)
    held = ours.trained + ours.master + ours.moments + ours.kept_gradients + ours.step - own_step
    assert held - 2 * NUMBERS // gpus == theirs


@pytest.mark.parametrize(
    ("stage", "dtype"), [(1, "fp32"), (1, "bf16"), (2, "bf16"), (3, "bf16"), (3, "fp32")]
)
def test_offloading_moves_the_optimizer_and_all_of_its_step(stage: int, dtype: str) -> None:
    engine = EngineConfig(zero_stage=stage, dtype=dtype)  # type: ignore[arg-type]
    here, there = (states(COUNTS, replace(engine, offload_optimizer=o), 4) for o in ("none", "cpu"))
    assert there.master == there.moments == there.step == there.kept_gradients == 0
    assert there.host == here.master + here.moments + here.step + here.kept_gradients
    assert there.trained == here.trained


def test_frozen_weights_are_shared_in_stage_3_alone() -> None:
    counts = Counts(1000, 9000, 0)
    assert [states(counts, replace(BF16, zero_stage=s), 4).frozen for s in (0, 1, 2, 3)] == [18000] * 3 + [
        4500
    ]


def test_the_bucket_is_no_larger_than_what_is_trained_or_as_a_user_says() -> None:
    small = Counts(trained=1_000_000, frozen=NUMBERS, persistent=0)
    assert states(small, replace(BF16, zero_stage=2), 4).bucket == 2 * 1_000_000
    assert states(COUNTS, replace(BF16, zero_stage=2), 4).bucket == 2 * REDUCE_BUCKET
    own = replace(BF16, zero_stage=2, deepspeed={"zero_optimization": {"reduce_bucket_size": 5e7}})
    assert states(COUNTS, own, 4).bucket == 2 * 50_000_000


def test_quantised_weights_take_what_is_said_of_them() -> None:
    counts = Counts(trained=1000, frozen=9000, persistent=0, quantised=8000, quantised_bytes=4100)
    assert [states(counts, replace(BF16, zero_stage=s), 4).frozen for s in (0, 1, 2)] == [2 * 1000 + 4100] * 3
    assert counts.total == 10_000


def test_buffers_are_deepspeeds_defaults() -> None:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    defaults = DeepSpeedZeroConfig(stage=3)
    assert defaults.reduce_bucket_size == REDUCE_BUCKET
    assert defaults.param_persistence_threshold == PERSISTENT
    assert defaults.max_live_parameters == defaults.sub_group_size == MAX_LIVE
