"""What DeepSpeed is told, a user's own keys, and what contradicts itself."""

from __future__ import annotations

from typing import Any

import pytest

from data_prep.records import InputError
from pipeline.config import EngineConfig
from pipeline.training.zero_config import check, refusals_named, zero_config


def test_nothing_is_left_to_deepspeeds_defaults() -> None:
    config = zero_config(EngineConfig(gradient_clipping=0.0, zero_stage=1, dtype="bf16"), micro_batch=3)
    assert config["gradient_clipping"] == 0.0
    assert config["zero_optimization"]["stage"] == 1
    assert config["bf16"]["enabled"]
    assert config["train_micro_batch_size_per_gpu"] == 3


def test_keys_of_a_users_own_come_on_top() -> None:
    own: dict[str, Any] = {
        "zero_optimization": {"reduce_bucket_size": 1000, "offload_optimizer": {"pin_memory": True}},
        "communication_data_type": "fp32",
    }
    config = EngineConfig(zero_stage=2, offload_optimizer="cpu", deepspeed=own)
    check(config)
    made = zero_config(config, 1)
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
