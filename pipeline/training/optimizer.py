"""AdamW over groups with learning rates of their own, and how those rates move: a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from pipeline.config import OptimizerConfig


def learning_rate_scale(step: int, num_steps: int, config: OptimizerConfig) -> float:
    """Factor in [0, 1] on all learning rates at 0-based ``step``: linear warm-up, then constant or cosine."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    if config.schedule == "constant":
        return warm
    done = min(1.0, max(0.0, (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps)))
    floor = config.final_scale
    return warm * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))


def adamw(groups: Sequence[dict[str, Any]], config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over groups with ``params`` (trainable ones only) and ``lr``."""
    return torch.optim.AdamW(
        [dict(group) for group in groups],
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
    )


class FiniteSteps:
    """Clips the gradients of an optimizer before each step, and turns a step whose gradients hold an infinity or
    NaN into none. For ZeRO stage 0 in fp32, where DeepSpeed's own wrappers, which do both, are not there.

    The gradients are the same on every rank then, and so is the decision. DeepSpeed reads ``overflow``.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, max_norm: float) -> None:
        self._optimizer: Any = optimizer
        self._max_norm = max_norm  # 0: no clipping
        self.norm = math.nan  # L2, before clipping, of the last step
        optimizer.register_step_pre_hook(lambda *_: self._before())

    def _before(self) -> None:
        parameters = [p for g in self._optimizer.param_groups for p in g["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        self.norm = float(norm)
        self._optimizer.overflow = not math.isfinite(self.norm)
        if self._optimizer.overflow:
            for parameter in parameters:
                parameter.grad = None  # then there is nothing to step with, and no moment is touched
        elif self._max_norm > 0:
            torch.nn.utils.clip_grads_with_norm_(parameters, self._max_norm, norm)
