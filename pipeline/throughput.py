"""How fast a training is: samples, tokens and floating-point operations per second, and the memory it takes.

Operations are counted, not estimated: PyTorch's own counter watches one forward pass of the real model. A step is
taken as three of them (a backward pass costs two), as usual for model-FLOPs utilisation (Chowdhery et al. 2022,
arXiv 2204.02311, appendix B): what activation checkpointing does again is not counted.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

PASSES_PER_STEP = 3
# Dense bf16 operations per second, in the order they are looked for in the device's name (vendors' data sheets).
PEAK_BF16 = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "4090": 165e12,
    "5090": 209e12,
    "B200": 2250e12,
}


def peak_of(device_name: str) -> float | None:
    """Operations per second that a device of this name can do in bf16, or None where it is not known."""
    return next((peak for part, peak in PEAK_BF16.items() if part in device_name), None)


def forward_operations(forward: Callable[[], object]) -> int:
    """Floating-point operations of one call, counted while it runs; matrix products and convolutions only."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward()
    return int(counter.get_total_flops())


@dataclass(frozen=True)
class Work:
    """What one rank does in a step. samples, tokens: visual tokens over all its samples; operations: of its
    forward passes, 0 where they were not counted."""

    samples: int
    tokens: int
    operations: int = 0


def figures(work: Work, world: int, seconds: float, device: torch.device) -> dict[str, float]:
    """Per-second figures of a step over all ranks, and this rank's memory in MB.

    ``model_flops_utilisation`` in [0,1] is there for devices whose peak is known.
    """
    shown = {
        "samples_per_s": work.samples * world / seconds,
        "tokens_per_s": work.tokens * world / seconds,
        "memory_mb": _memory_mb(device),
    }
    if work.operations:
        done = work.operations * PASSES_PER_STEP / seconds
        shown["model_tflops_per_s"] = done * world / 1e12
        peak = peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        if peak is not None:
            shown["model_flops_utilisation"] = done / peak
    return shown


def _memory_mb(device: torch.device) -> float:
    """The most that this process has held: of the accelerator's memory where there is one, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
