"""The phases of a training, at its steps."""

from __future__ import annotations

import pytest
import torch

from pipeline.config import ScheduleConfig
from pipeline.objective.schedule import fine_share


def at(config: ScheduleConfig, *progress: float) -> list[float]:
    return fine_share(config, torch.tensor(progress, dtype=torch.float64)).tolist()


def test_values_at_the_steps_of_a_training() -> None:
    tenths = [step / 10 for step in range(11)]
    assert at(ScheduleConfig(), *tenths) == [1.0] * 11
    assert at(ScheduleConfig(coarse=0.3), *tenths) == [0.0] * 3 + [1.0] * 8
    ramp = at(ScheduleConfig(coarse=0.2, fade_in=0.4), *tenths)
    assert ramp == pytest.approx([0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1])
    assert at(ScheduleConfig(fade_in=0.5), *tenths)[:6] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert at(ScheduleConfig(coarse=1.0), *tenths) == [0.0] * 10 + [1.0]
