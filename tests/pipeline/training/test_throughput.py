"""Operations against a count by hand, and the figures that follow from them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.training import throughput
from pipeline.training.throughput import Speedometer


class Objective(nn.Module):
    """A trained network behind a frozen codec that is none of its modules."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 4))
        self.codec = [nn.Linear(8, 8)]

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.transformer(self.codec[0](video))
        return answer


BY_HAND = 2 * 5 * (8 * 32 + 32 * 4)  # a multiplication and an addition per weight and row


def test_operations_of_what_is_trained_are_counted_and_no_others() -> None:
    objective = Objective()
    video = torch.zeros(5, 8)
    assert throughput.forward_operations(lambda: objective(video), (objective.transformer,)) == BY_HAND


def test_figures_of_a_step() -> None:
    speed, objective = Speedometer(2, torch.device("cpu")), Objective()
    assert "model_tflops_per_s" not in speed.figures(1, 1.0, 1.0)
    for times in (1, 7):  # the first count stays
        rows = torch.zeros(5 * times, 8)
        speed.count(lambda rows=rows: objective(rows), (objective.transformer,), 5.0)
    shown = speed.figures(4, 600.0, 0.5)
    assert shown["samples_per_s"] == 16 and shown["tokens_per_s"] == 2400
    assert shown["model_tflops_per_s"] == pytest.approx(3 * BY_HAND / 5 * 600 / 0.5 * 2 / 1e12)
    assert shown["memory_mb"] > 50 and "model_flops_utilisation" not in shown


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("?", None),
    ],
)
def test_peaks_are_found_by_the_devices_name(name: str, peak: float | None) -> None:
    assert throughput.peak_of(name) == peak
