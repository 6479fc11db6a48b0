"""The low-frequency path: the cast's pictures and drawn landmarks reach the transformer with its noisy latents.

ConsisID (arXiv 2411.17440), section 3.2, widens the input convolution of its transformer: the face's latents stand
beside latent frame 0 and those of its landmarks beside frame 1, zeros behind. The same is done here without
touching the transformer: a patch embedding of its own, whose weights start at zero, makes tokens of the canvases,
and a forward hook adds them to those of the noisy latents, which is what a convolution over both channels
computes. A video of one latent frame is given the faces alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from pipeline.families.contract import Entrance
from pipeline.identity.attention import ContextSlot


class LowFrequency(nn.Module):
    """The patch embedding of the canvases' latents."""

    def __init__(self, entrance: Entrance, width: int) -> None:
        """Of a transformer of hidden width ``width``."""
        super().__init__()
        self.embed = nn.Conv3d(entrance.channels, width, entrance.patch, entrance.patch, bias=False)
        nn.init.zeros_(self.embed.weight)  # the base model's output, bit for bit, until trained

    def forward(self, tokens: torch.Tensor, canvases: torch.Tensor, text: int | None = None) -> torch.Tensor:
        """What the entrance answered with the canvases' tokens added to those of the first frames.

        tokens: [B,W,t,h,w], or, with ``text``, [B,S+L,W] of S text tokens and the visual ones behind them;
        canvases: f32[B,C,2,h,w] latents.
        """
        missing = -canvases.shape[2] % self.embed.kernel_size[0]
        filled = functional.pad(canvases.to(self.embed.weight.dtype), (0, 0, 0, 0, 0, missing))
        added = self.embed(filled).to(tokens.dtype)
        if text is None:
            added = added[:, :, : tokens.shape[2]]
            return tokens + functional.pad(added, (0, 0, 0, 0, 0, tokens.shape[2] - added.shape[2]))
        num_visual = tokens.shape[1] - text
        added = added.flatten(2).mT[:, :num_visual]
        return tokens + functional.pad(added, (0, 0, text, num_visual - added.shape[1]))


@dataclass(frozen=True)
class EntranceHook:
    """The forward hook at the entrance: adds the tokens of the current context's canvases, if there are any."""

    path: LowFrequency
    slot: ContextSlot
    joint: bool

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        """The entrance's output, unchanged where no context is current."""
        context = self.slot.current
        if context is None or context.canvases is None:
            return output
        added: torch.Tensor = self.path(output, context.canvases, args[0].shape[1] if self.joint else None)
        return added
