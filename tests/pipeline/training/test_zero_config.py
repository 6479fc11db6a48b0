"""What DeepSpeed is told, a user's own keys, and what contradicts itself."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

import pytest

from data_prep.records import InputError
from pipeline.config import EngineConfig
from pipeline.training.zero_config import OURS, REDUCE_BUCKET, THEIRS, check, refusals_named, zero_config


def test_nothing_is_left_to_deepspeeds_defaults() -> None:
    config = zero_config(
        EngineConfig(gradient_clipping=0.0, zero_stage=1, dtype="bf16"), micro_batch=3, num_trained=7
    )
    assert config["gradient_clipping"] == 0.0
    assert config["zero_optimization"]["stage"] == 1
    assert config["bf16"]["enabled"]
    assert config["train_micro_batch_size_per_gpu"] == 3
    assert config["zero_optimization"]["reduce_bucket_size"] == 7
    whole = zero_config(EngineConfig(), micro_batch=3, num_trained=10**10)
    assert whole["zero_optimization"]["reduce_bucket_size"] == REDUCE_BUCKET


def test_keys_of_a_users_own_come_on_top() -> None:
    own: dict[str, Any] = {
        "zero_optimization": {"reduce_bucket_size": 1000, "offload_optimizer": {"pin_memory": True}},
        "communication_data_type": "fp32",
    }
    config = EngineConfig(zero_stage=2, offload_optimizer="cpu", deepspeed=own)
    check(config)
    made = zero_config(config, 1, 10**10)
    assert made["zero_optimization"]["stage"] == 2
    assert made["zero_optimization"]["reduce_bucket_size"] == 1000
    assert made["zero_optimization"]["offload_optimizer"] == {"device": "cpu", "pin_memory": True}
    assert made["communication_data_type"] == "fp32"


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            {"zero_optimization": {"stage": 3}},
            "zero_optimization.stage=3 is castbank's own; set engine.zero_stage",
        ),
        ({"train_batch_size": 8}, "train_batch_size=8 is castbank's own; set batch_size"),
        ({"gradient_clipping": 0.5}, "set engine.gradient_clipping"),
        ({"bf16": {"enabled": True}}, "bf16.enabled=True is castbank's own; set engine.dtype"),
        ({"fp16": {}}, "set engine.dtype"),
        ({"scheduler": {"type": "WarmupLR"}}, "set optimizer.schedule"),
        ({"zero_optimization": {"offload_param": {"device": "cpu"}}}, "set engine.offload_parameters"),
    ],
)
def test_a_key_that_is_a_knob_is_refused_by_name(own: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        check(EngineConfig(deepspeed=own))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("zero_optimisation", "did you mean zero_optimization"),
        ("wall_clock_break_down", "did you mean wall_clock_breakdown"),
        ("gradient_cliping", "did you mean gradient_clipping"),
        ("colour", "it reads aio, autotuning"),
    ],
)
def test_a_key_that_deepspeed_would_ignore_is_refused(key: str, message: str) -> None:
    with pytest.raises(InputError, match=f"engine.deepspeed: {key} is no key of DeepSpeed's.*{message}"):
        check(EngineConfig(deepspeed={key: {}}))


class Asked(dict[str, Any]):
    """A configuration that remembers what it was asked for, by whoever holds a copy too."""

    seen: ClassVar[set[str]] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.seen.add(key)
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self.seen.add(str(key))
        return super().__contains__(key)

    def __copy__(self) -> Asked:
        return Asked(self)


def test_the_keys_are_those_that_deepspeeds_own_code_asks_for() -> None:
    importlib.import_module("pipeline.training.engine")  # says which accelerator there is
    theirs = importlib.import_module("deepspeed.runtime.config")
    theirs.DeepSpeedConfig(
        Asked(train_batch_size=1, train_micro_batch_size_per_gpu=1, gradient_accumulation_steps=1)
    )
    asked = Asked.seen - theirs._REMOVED_TOP_LEVEL_CONFIG_KEYS.keys()
    assert asked <= {*THEIRS, *(name.split(".")[0] for name in OURS)}
    otherwise = {"aio", "autotuning", "data_efficiency", "flops_profiler", "sequence_parallel_size"}
    assert set(THEIRS) - asked == otherwise  # asked for by way of keys(), or before a copy is made


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"offload_parameters": "cpu", "zero_stage": 2}, "offload_parameters=cpu: only engine.zero_stage=3"),
        ({"offload_optimizer": "cpu", "zero_stage": 0}, "set zero_stage to 1, 2 or 3"),
        (
            {"offload_optimizer": "nvme", "zero_stage": 2, "offload_folder": "/nvme"},
            "only engine.zero_stage=3",
        ),
        ({"offload_parameters": "nvme", "zero_stage": 3}, "engine.offload_folder: nvme needs a folder"),
    ],
)
def test_offloads_that_cannot_be_are_refused(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        check(EngineConfig(**knobs))
    assert message in str(error.value)


def test_what_deepspeed_refuses_of_a_users_keys_is_shown_with_them() -> None:
    config = EngineConfig(deepspeed={"zero_optimization": {"reduce_bucket": 1}})
    with (
        pytest.raises(
            InputError, match=r"engine.deepspeed=.*'reduce_bucket': 1.*DeepSpeed refuses it: not known"
        ),
        refusals_named(config),
    ):
        raise ValueError("not\n known")
    with pytest.raises(ValueError, match="our own"), refusals_named(EngineConfig()):
        raise ValueError("our own")
