"""A recogniser that is no network: what tests of the identity loss look at faces with."""

from __future__ import annotations

import torch


class PlainRecogniser(torch.nn.Module):
    """Frozen and linear: faces f32[n,3,112,112] to unit rows f32[n,32]."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.register_buffer("weight", torch.randn(3 * 16 * 16, 32, generator=generator))

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        small = torch.nn.functional.adaptive_avg_pool2d(faces, 16).flatten(1)
        return torch.nn.functional.normalize(small @ self.weight, dim=-1)
