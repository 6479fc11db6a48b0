"""The third attention of a block: each visual token is routed to one of the cast, or nobody, and reads only there.

It adds its output to that of the block's last attention (a forward hook; the transformer's own modules, names and
weights stay untouched), so it stands between attention and feed-forward. What a forward pass needs of the cast
travels in a ``CastContext`` that is current during that pass only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from pipeline.identity.routed_read import routed_read


@dataclass(frozen=True)
class CastContext:
    """The cast of one forward pass over B samples of L visual tokens, N slots.

    tokens: f32[B,N,K,C], slot embedding added and the separator last; mask: bool[B,N] filled slots; strength:
    f32[B], 0 switches a sample's identity off; layout: f32[B,L,N+1] routes given by hand (column 0 nobody) or
    None, then the router decides; canvases: f32[B,C,2,h,w] latents of the cast's pictures and landmarks, times
    their own strength, for the low-frequency path, or None; routed: False where every token reads the whole cast.
    ``routing`` has the router logits f32[B,L,N+1] by layer, after the pass; none where nothing is routed.
    """

    tokens: torch.Tensor
    mask: torch.Tensor
    strength: torch.Tensor
    layout: torch.Tensor | None = None
    canvases: torch.Tensor | None = None
    routed: bool = True
    routing: dict[int, torch.Tensor] = field(default_factory=dict)


@dataclass
class LastLogits:
    """Where a layer leaves its router logits until its pass has ended."""

    value: torch.Tensor | None = None


class ContextSlot:
    """Where the layers of one network find the context of the pass that is running, and leave their logits.

    A layer does not know its number and reads nothing that another has written, so that ``torch.compile`` makes one
    program for all blocks: with a number each would have its own, and behind the eighth it gives up (measured: 4
    programs for 4 blocks; now 1).
    """

    def __init__(self) -> None:
        self.current: CastContext | None = None
        self.logits: list[LastLogits] = []

    def new_layer(self) -> LastLogits:
        """The place of one more layer."""
        self.logits.append(LastLogits())
        return self.logits[-1]

    @contextmanager
    def holding(self, context: CastContext | None) -> Iterator[None]:
        """Makes ``context`` current; at the end its ``routing`` is filled, and the one before comes back."""
        before, self.current = self.current, context
        try:
            yield
        finally:
            self._collect(context)
            self.current = before

    def _collect(self, context: CastContext | None) -> None:
        for layer, last in enumerate(self.logits):
            logits, last.value = last.value, None
            if context is not None and logits is not None:
                context.routing.setdefault(layer, logits)  # the replay of a checkpoint must not replace it

    def checkpoint(self, block: nn.Module, *args: Any) -> Any:
        """Activation checkpointing (for diffusers' ``enable_gradient_checkpointing``) that replays a block in the
        context its forward pass had: backward runs when that is no longer current."""
        context = self.current

        def replay(*inner: Any) -> Any:
            with self.holding(context):
                return block(*inner)

        return checkpoint(replay, *args, use_reentrant=False)


HEAD_WIDTH = 128  # at most; that of Wan's and CogVideoX's own heads is 128 and 64


def num_heads_of(width: int, least: int) -> int:
    """How many heads an attention of ``width`` has: ``least``, or as many more as divide it into narrow ones."""
    return next(
        heads for heads in range(least, width + 1) if width % heads == 0 and width // heads <= HEAD_WIDTH
    )


class FoldedQuery(nn.Module):
    """A linear layer y = W x + b for products y·k with few keys: they are products of x with Wᵀ k, plus b·k.

    So it is applied to N+1 keys rather than to L tokens: one of the layer's three W × W products per token less.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        made = nn.Linear(width, width)
        self.weight, self.bias = made.weight, made.bias

    def forward(self, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys [B,M,W] → what to multiply x with, [B,M,W], and what to add, [B,M]."""
        return keys @ self.weight, keys @ self.bias


class IdentityAttention(nn.Module):
    """Routed cross-attention over the tokens of a cast, with an output projection that starts at zero.

    Without a router it is the plain cross-attention that others add for a picture (Ye et al. 2023, arXiv
    2308.06721): every token reads all characters at once.
    """

    def __init__(self, width: int, token_width: int, num_heads: int, routed: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(token_width, width)
        self.to_v = nn.Linear(token_width, width)
        if routed:
            self.router_q = FoldedQuery(width)
            self.router_k = nn.Linear(token_width, width)
            self.nobody = nn.Parameter(torch.zeros(width))
        self.to_out = nn.Linear(width, width)
        nn.init.zeros_(self.to_out.weight)  # the base model's output, bit for bit, until trained
        nn.init.zeros_(self.to_out.bias)

    def forward(self, hidden: torch.Tensor, context: CastContext) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Hidden f32[B,L,W] → what to add, f32[B,L,W], and the router's logits f32[B,L,N+1], column 0 nobody; None
        without a router.

        Each head attends within one character at a time; the characters' answers are mixed by the route, so a
        token that is routed to one character cannot read another. Nobody answers with zero.
        """
        hidden = self.norm(hidden)
        tokens = context.tokens.to(hidden.dtype).flatten(1, 2)
        q = self._heads(self.to_q(hidden))  # [B,h,L,d]
        k, v = self._heads(self.to_k(tokens)), self._heads(self.to_v(tokens))  # [B,h,N*K,d]
        logits = self._route(hidden, context) if context.routed else None
        if logits is None:
            filled = context.mask.repeat_interleave(context.tokens.shape[2], 1)[:, None, None]  # [B,1,1,N*K]
            read = scaled_dot_product_attention(q, k, v, attn_mask=filled)
        else:
            route = logits.softmax(-1) if context.layout is None else context.layout.to(logits.dtype)
            read = routed_read(q, k, v, route[..., 1:])
        read = read.transpose(1, 2).flatten(2)
        added: torch.Tensor = self.to_out(read)
        return added * context.strength.to(read).view(-1, 1, 1), logits

    def _heads(self, projected: torch.Tensor) -> torch.Tensor:
        """[B,M,W] → [B,h,M,d]."""
        heads: torch.Tensor = projected.unflatten(-1, (self.num_heads, -1))  # type: ignore[no-untyped-call]
        return heads.transpose(1, 2)

    def _route(self, hidden: torch.Tensor, context: CastContext) -> torch.Tensor:
        """Scaled products of each token with each character's mean token; empty slots are out of reach."""
        characters = self.router_k(context.tokens.to(hidden.dtype).mean(2))  # [B,N,W]
        keys = torch.cat([self.nobody.expand(len(characters), 1, -1), characters], 1)
        slopes, offsets = self.router_q(keys / hidden.shape[-1] ** 0.5)
        logits = hidden @ slopes.to(hidden.dtype).mT + offsets[:, None]
        filled = torch.cat([torch.ones_like(context.mask[:, :1]), context.mask], 1)  # nobody is always there
        reachable: torch.Tensor = logits.masked_fill(~filled[:, None], float("-inf"))
        return reachable


@dataclass(frozen=True)
class IdentityHook:
    """The forward hook at one site: reads the site's input and output, adds the identity attention's answer.

    A cross-attention answers f32[B,L,W]; a joint attention also takes and answers text, which stays as it is.
    attention: None where the site has no identity.
    """

    attention: IdentityAttention | None
    slot: ContextSlot
    logits: LastLogits

    def __call__(self, site: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """The site's output, unchanged where no context is current."""
        context = self.slot.current
        if context is None or self.attention is None:
            return output
        hidden = args[0] if args else kwargs["hidden_states"]
        answer, *text = output if isinstance(output, tuple) else (output,)
        added, self.logits.value = self.attention(hidden + answer, context)
        return (answer + added, *text) if text else answer + added
