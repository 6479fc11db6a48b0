"""All trained parts of identity in one module: reference encoder, slots, separator, a family's attentions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from data_prep.records import InputError
from pipeline.config import IdentityConfig
from pipeline.families.contract import Entrance
from pipeline.identity.attention import (
    CastContext,
    ContextSlot,
    IdentityAttention,
    IdentityHook,
    LastLogits,
    num_heads_of,
)
from pipeline.identity.encoder import ReferenceEncoder
from pipeline.identity.low_frequency import EntranceHook, LowFrequency


class CastSlots(nn.Module):
    """An embedding for each slot and the separator; a module of its own, since ZeRO-3 gathers a module's parameters
    when it is called, and a context is made outside the network's call."""

    def __init__(self, num_slots: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(num_slots, width))
        self.separator = nn.Parameter(torch.randn(width))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens f32[B,N,K,C] → f32[B,N,K+1,C]."""
        b, n, _, width = tokens.shape
        tokens = tokens + self.embedding[:n, None]
        return torch.cat([tokens, self.separator.expand(b, n, 1, width)], 2)


class IdentityNetwork(nn.Module):
    """Turns references, or a bank's tokens, into the context that its attentions read.

    A slot's embedding ties it to the sentence of the same place in the prompt; the separator ends each
    character's tokens and gives a head somewhere to look when none of them matters.
    """

    def __init__(
        self,
        config: IdentityConfig,
        sites: Sequence[nn.Module],
        width: int,
        entrance: Entrance | None = None,
    ) -> None:
        """Attaches itself to every ``config.every``-th of the sites, whose hidden width is ``width``, and, with
        ``config.low_frequency``, to the entrance. The other sites have a hook that does nothing: ``torch.compile``
        does not look whether a module has hooks, and would run a block that has one by a block's program that has
        none, without identity (measured)."""
        super().__init__()
        self.config = config
        self.encoder = ReferenceEncoder(config)
        self.slots = CastSlots(config.max_cast, config.width)
        self.slot = ContextSlot()
        self.attentions = nn.ModuleList()
        for number, site in enumerate(sites, 1):
            attention, logits = None, LastLogits()
            if number % config.every == 0:
                attention, logits = (
                    IdentityAttention(
                        width, config.width, num_heads_of(width, config.num_heads), config.binding == "routed"
                    ),
                    self.slot.new_layer(),
                )
                self.attentions.append(attention)
            site.register_forward_hook(IdentityHook(attention, self.slot, logits), with_kwargs=True)
        self.low_frequency: LowFrequency | None = None
        if config.low_frequency:  # made last: the others are drawn as they are without it
            assert entrance is not None, "the low-frequency path needs an entrance"
            self.low_frequency = LowFrequency(entrance, width)
            at_entrance = EntranceHook(self.low_frequency, self.slot, entrance.joint)
            entrance.module.register_forward_hook(at_entrance)

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights, as modules of diffusers say it."""
        return self.slots.separator.dtype

    @property
    def device(self) -> torch.device:
        """Of its weights, as modules of diffusers say it."""
        return self.slots.separator.device

    def context(
        self,
        tokens: torch.Tensor,
        mask: torch.Tensor,
        strength: torch.Tensor,
        layout: torch.Tensor | None = None,
        canvases: torch.Tensor | None = None,
    ) -> CastContext:
        """Tokens f32[B,N,K,C] and mask bool[B,N] of a cast, as ``CastContext`` describes; N at most max_cast.

        Raises InputError for more, and for a layout where nothing is routed.
        """
        n, most, binding = tokens.shape[1], self.config.max_cast, self.config.binding
        if n > most:
            raise InputError(f"cast: {n} characters, but identity.max_cast is {most}; name fewer")
        if layout is not None and binding != "routed":
            raise InputError(
                f"layout: this model's identity.binding is {binding}, which reads the whole cast everywhere; leave "
                "the layout out, or take a model that is routed"
            )
        if binding == "pooled":
            share = mask / mask.sum(1, keepdim=True).clamp(min=1)  # [B,N]
            tokens = torch.einsum("bn,bnkc->bkc", share.to(tokens), tokens)[:, None]
            mask = mask.any(1, keepdim=True)
        return CastContext(self.slots(tokens), mask, strength, layout, canvases, binding == "routed")

    def forward(self, references: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """References f32[B,N,R,D], mask bool[B,N,R] → tokens f32[B,N,K,C] of each character, without a slot."""
        tokens: torch.Tensor = self.encoder(references, mask)
        return tokens
