"""Attention over one character at a time, mixed by a route, that keeps nothing of the size of its weights.

All at once, the weights of L tokens on N characters of K tokens are B·h·L·N·K numbers, and a fused attention per
character keeps N answers of B·L·W. Here backward makes each character's weights once more instead, one character
after the other: what is kept is q, k, v and the route, whatever N is (as in Dao et al. 2022, arXiv 2205.14135,
with K too small to need blocks).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable


def routed_read(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, route: torch.Tensor) -> torch.Tensor:
    """Σ_n route_n · softmax(q k_nᵀ / √d) v_n.

    q: [B,h,L,d]; k, v: [B,N,h,K,d]; route: [B,L,N], any weights. Returns [B,h,L,d]; all of one dtype but route.
    """
    read: torch.Tensor = _RoutedRead.apply(q, k, v, route)  # type: ignore[no-untyped-call]
    return read


class _RoutedRead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, route: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(q, k, v, route)
        read = torch.zeros_like(q)
        for n in range(k.shape[1]):
            weights = _weights(q, k[:, n]) * route[:, None, :, n, None]
            read = read + weights.to(v.dtype) @ v[:, n]
        return read

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
        q, k, v, route = ctx.saved_tensors
        grad_q, by_character = torch.zeros_like(q), []
        for n in range(k.shape[1]):
            weights, share = _weights(q, k[:, n]), route[:, None, :, n, None]
            pulled = weights * (grad @ v[:, n].mT).float()  # [B,h,L,K]
            total = pulled.sum(-1, keepdim=True)
            scores = ((pulled - weights * total) * (share / q.shape[-1] ** 0.5)).to(q.dtype)
            grad_q = grad_q + scores @ k[:, n]
            grad_v = (weights * share).to(v.dtype).mT @ grad
            by_character.append((scores.mT @ q, grad_v, total.sum((1, 3)).to(route.dtype)))
        grad_k, grad_v, grad_route = (torch.stack(parts, 1) for parts in zip(*by_character, strict=True))
        return grad_q, grad_k, grad_v, grad_route.mT


def _weights(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """softmax(q kᵀ / √d), f32[B,h,L,K], for q [B,h,L,d] and k [B,h,K,d]."""
    weights: torch.Tensor = ((q @ k.mT).float() / q.shape[-1] ** 0.5).softmax(-1)
    return weights
