"""How fast a training is: samples, tokens and floating-point operations per second, and the memory it takes.

Operations are counted, not estimated: PyTorch's own counter watches one forward pass of the real model. A step is
taken as three of them (a backward pass costs two), as usual for model-FLOPs utilisation (Chowdhery et al. 2022,
arXiv 2204.02311, appendix B): what activation checkpointing does again is not counted.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

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


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the operations of what runs while ``inside`` is set, by PyTorch's own formulas."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.inside, self.total = False, 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        answer = function(*args, **(kwargs or {}))
        formula = flop_registry.get(function.overloadpacket)
        if self.inside and formula is not None:
            self.total += int(formula(*args, **(kwargs or {}), out_val=answer))
        return answer


def forward_operations(forward: Callable[[], object], modules: Sequence[nn.Module]) -> int:
    """Floating-point operations of one call within some modules, counted while it runs: matrix products, attentions
    and convolutions; those of frozen codecs and encoders, which are none of the modules, are left out."""
    counter = _Counter()

    def enter(*_: Any) -> None:
        counter.inside = True

    def leave(*_: Any) -> None:
        counter.inside = False

    hooks = [
        hook for m in modules for hook in (m.register_forward_pre_hook(enter), m.register_forward_hook(leave))
    ]
    try:
        with counter:
            forward()
    finally:
        for hook in hooks:
            hook.remove()
    return counter.total


class Speedometer:
    """What a training does per second, over all ranks."""

    def __init__(self, world: int, device: torch.device) -> None:
        self._world, self._device = world, device
        self._per_token: float | None = None

    def count(self, forward: Callable[[], object], modules: Sequence[nn.Module], num_tokens: float) -> None:
        """Count the operations of one forward pass over so many visual tokens, the first time that it is asked."""
        if self._per_token is None and modules and num_tokens:
            self._per_token = forward_operations(forward, modules) / num_tokens

    def figures(self, num_samples: int, num_tokens: float, seconds: float) -> dict[str, float]:
        """Of one step, in which this rank had so many samples and visual tokens; memory of this rank in MB.

        ``model_flops_utilisation`` in [0,1] is there for devices whose peak is known.
        """
        shown = {
            "samples_per_s": num_samples * self._world / seconds,
            "tokens_per_s": num_tokens * self._world / seconds,
            "memory_mb": _memory_mb(self._device),
        }
        if self._per_token is not None:
            done = self._per_token * num_tokens * PASSES_PER_STEP / seconds
            shown["model_tflops_per_s"] = done * self._world / 1e12
            name = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else ""
            if (peak := peak_of(name)) is not None:
                shown["model_flops_utilisation"] = done / peak
        return shown


def _memory_mb(device: torch.device) -> float:
    """The most that this process has held: of the accelerator's memory where there is one, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6  # Linux counts in KiB
