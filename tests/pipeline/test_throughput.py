"""Operations against a count by hand, and the figures that follow from them."""

from __future__ import annotations

import pytest
import torch

from pipeline import throughput
from pipeline.throughput import Work


def test_operations_of_a_known_network_are_counted() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.GELU(), torch.nn.Linear(32, 4))
    counted = throughput.forward_operations(lambda: network(torch.zeros(5, 8)))
    assert counted == 2 * 5 * (8 * 32 + 32 * 4)  # a multiplication and an addition per weight and row


def test_figures_of_a_step() -> None:
    shown = throughput.figures(Work(4, 600, 10**9), 2, 0.5, torch.device("cpu"))
    assert shown["samples_per_s"] == 16 and shown["tokens_per_s"] == 2400
    assert shown["model_tflops_per_s"] == pytest.approx(3 * 10**9 / 0.5 * 2 / 1e12)
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
