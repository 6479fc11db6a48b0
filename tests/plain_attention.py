"""Identity attention as its definition reads, all weights at once, or one fused attention per character: what ours
is compared with, in numbers, in memory and in time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from pipeline.identity.attention import CastContext, IdentityAttention

Form = Callable[[torch.Tensor, CastContext], tuple[torch.Tensor, torch.Tensor]]


def all_at_once(
    a: IdentityAttention, hidden: torch.Tensor, context: CastContext
) -> tuple[torch.Tensor, torch.Tensor]:
    """B·h·L·N·K weights; the router projects every visual token."""
    hidden, logits, route = _routed(a, hidden, context)
    q, k, v = _projected(a, hidden, context.tokens.flatten(1, 2))
    scores = (q @ k.mT / q.shape[-1] ** 0.5).unflatten(-1, context.tokens.shape[1:3])
    weights = (scores.softmax(-1) * route[:, None, :, 1:, None]).flatten(-2)
    return _out(a, weights @ v, context), logits


def fused_per_character(
    a: IdentityAttention, hidden: torch.Tensor, context: CastContext
) -> tuple[torch.Tensor, torch.Tensor]:
    """N answers of B·L·W."""
    hidden, logits, route = _routed(a, hidden, context)
    q, k, v = _projected(a, hidden, context.tokens.flatten(1, 2))
    cast, read = context.tokens.shape[1], torch.zeros(())
    for n, (keys, values) in enumerate(zip(k.chunk(cast, 2), v.chunk(cast, 2), strict=True), 1):
        answer = functional.scaled_dot_product_attention(q, keys, values)
        read = read + answer * route[:, None, :, n, None]
    return _out(a, read, context), logits


def saved_bytes(a: IdentityAttention, form: Form, hidden: torch.Tensor, context: CastContext) -> int:
    """What autograd keeps of one call, each storage once, parameters and what is given left out."""
    given = {t.untyped_storage().data_ptr() for t in (hidden, context.tokens, *a.parameters())}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        answer = form(hidden, context)  # held, so that no address is used twice
    del answer
    return sum(kept.values())


def _routed(
    a: IdentityAttention, hidden: torch.Tensor, context: CastContext
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    hidden = a.norm(hidden)
    characters = a.router_k(context.tokens.mean(2))
    keys = torch.cat([a.nobody.expand(len(characters), 1, -1), characters], 1)
    asked = functional.linear(hidden, a.router_q.weight, a.router_q.bias)
    logits = asked @ keys.mT / hidden.shape[-1] ** 0.5
    filled = torch.cat([torch.ones_like(context.mask[:, :1]), context.mask], 1)
    logits = logits.masked_fill(~filled[:, None], float("-inf"))
    return hidden, logits, logits.softmax(-1) if context.layout is None else context.layout


def _projected(
    a: IdentityAttention, hidden: torch.Tensor, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    q, k, v = (
        x.unflatten(-1, (a.num_heads, -1)).transpose(1, 2)
        for x in (a.to_q(hidden), a.to_k(tokens), a.to_v(tokens))
    )
    return q, k, v


def _out(a: IdentityAttention, read: torch.Tensor, context: CastContext) -> torch.Tensor:
    added: torch.Tensor = a.to_out(read.transpose(1, 2).flatten(2))
    return added * context.strength.view(-1, 1, 1)
