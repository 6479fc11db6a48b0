"""A training that fits in a screen, for the tests of the engine: a network, its samples, plain PyTorch on it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pipeline.batch import Batch
from pipeline.config import EngineConfig, OptimizerConfig
from pipeline.training.optimizer import learning_rate_scale

HEAVY = ("pipeline.training.engine", "diffusers")
STEPS, SAMPLES, RATE = 4, 8, 1e-2
OPTIONS = OptimizerConfig(warmup_steps=2)


class Regression(torch.nn.Module):
    """A small objective with a frozen part: predicts the sample's position from its video."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.frozen = torch.nn.Linear(24, 16).requires_grad_(False)
        self.layers = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        guess = self.layers(self.frozen(batch.video.flatten(1))).squeeze(1)
        loss = (guess - batch.positions.to(guess.dtype) / 10).square().mean()
        return {"loss": loss}


def batch_of(positions: list[int]) -> Batch:
    videos = [torch.randn(3, 1, 2, 4, generator=torch.Generator().manual_seed(p)) for p in positions]
    n = len(positions)
    return Batch(
        video=torch.stack(videos),
        label_map=torch.zeros(n, 1, 2, 4, dtype=torch.uint8),
        references=torch.zeros(n, 1, 1, 4),
        reference_mask=torch.zeros(n, 1, 1, dtype=torch.bool),
        own_faces=torch.zeros(n, 1, 4),
        own_mask=torch.zeros(n, 1, dtype=torch.bool),
        cast_mask=torch.zeros(n, 1, dtype=torch.bool),
        cast=((),) * n,
        captions=("",) * n,
        keys=("",) * n,
        positions=torch.tensor(positions),
    )


def reference(seen: Callable[[int, torch.nn.Module], None] = lambda *_: None) -> dict[str, torch.Tensor]:
    """The training written out in plain PyTorch; ``seen`` is shown the module after each update."""
    module = Regression()
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, RATE, OPTIONS.betas, OPTIONS.eps, OPTIONS.weight_decay)
    for step in range(STEPS):
        loss = module(batch_of(list(range(SAMPLES * step, SAMPLES * (step + 1)))))["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, EngineConfig().gradient_clipping)
        optimizer.param_groups[0]["lr"] = RATE * learning_rate_scale(step, STEPS, OPTIONS)
        optimizer.step()
        seen(step + 1, module)
    return trained(module)


def trained(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}


def difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).detach().abs().max()) for name in a)
