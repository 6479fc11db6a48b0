"""Attention within one character at a time, mixed by a route, that keeps nothing of the size of its weights.

All at once, the weights of L tokens on N characters of K tokens are B·h·L·N·K numbers, and a fused attention per
character keeps N answers of B·L·W. Here they are made for some tokens at a time, and once more in backward: what is
kept is q, k, v and the route (as in Dao et al. 2022, arXiv 2205.14135, with N·K too small to need blocks).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

ROWS = 2048  # tokens at a time: 17 MB of weights at 8 characters of 33 tokens and 8 heads


def routed_read(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, route: torch.Tensor) -> torch.Tensor:
    """Σ_n route_n · softmax(q k_nᵀ / √d) v_n.

    q: [B,h,L,d]; k, v: [B,h,N*K,d], one character after the other; route: [B,L,N], any weights. Returns [B,h,L,d];
    all of one dtype but route.
    """
    read: torch.Tensor = _RoutedRead.apply(q, k, v, route)  # type: ignore[no-untyped-call]
    return read


class _RoutedRead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, route: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(q, k, v, route)
        parts = []
        mix = route[:, None, :, :, None]  # [B,1,L,N,1]
        rows = zip(q.split(ROWS, 2), mix.split(ROWS, 2), strict=True)  # type: ignore[no-untyped-call]
        for some, share in rows:
            weights = _weights(some, k, route.shape[-1]) * share
            parts.append(weights.flatten(-2).to(v.dtype) @ v)
        return torch.cat(parts, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
        q, k, v, route = ctx.saved_tensors
        grad_k, grad_v, parts = torch.zeros_like(k), torch.zeros_like(v), []
        mix = route[:, None, :, :, None]  # [B,1,L,N,1]
        for some, share, pull in zip(*(x.split(ROWS, 2) for x in (q, mix, grad)), strict=True):
            weights = _weights(some, k, route.shape[-1])
            pulled = weights * (pull @ v.mT).float().unflatten(-1, weights.shape[-2:])
            total = pulled.sum(-1, keepdim=True)  # [B,h,T,N,1]
            scores = (pulled - weights * total) * (share / q.shape[-1] ** 0.5)
            scores = scores.flatten(-2).to(q.dtype)
            grad_k = grad_k + scores.mT @ some
            grad_v = grad_v + (weights * share).flatten(-2).to(v.dtype).mT @ pull
            parts.append((scores @ k, total.sum((1, 4)).to(route.dtype)))
        grad_q, grad_route = zip(*parts, strict=True)
        return torch.cat(grad_q, 2), grad_k, grad_v, torch.cat(grad_route, 1)


def _weights(q: torch.Tensor, k: torch.Tensor, num_characters: int) -> torch.Tensor:
    """softmax(q k_nᵀ / √d) of each character, f32[B,h,T,N,K], for q [B,h,T,d] and k [B,h,N*K,d]."""
    scores: torch.Tensor = (q @ k.mT).float() / q.shape[-1] ** 0.5
    weights: torch.Tensor = scores.unflatten(-1, (num_characters, -1)).softmax(-1)  # type: ignore[no-untyped-call]
    return weights
