"""From a few reference faces of each character to the tokens that stand for it, in any order of the references."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from pipeline.config import IdentityConfig


class ReferenceEncoder(nn.Module):
    """Learned queries that read recogniser embeddings, as Q-Former does (Li et al. 2023, arXiv 2301.12597).

    Each reference becomes a few tokens without a position, so that references are pooled as a set.
    """

    tokens_per_reference = 4  # ConsisID has 5: one would leave the queries nothing to choose from

    def __init__(self, config: IdentityConfig) -> None:
        super().__init__()
        width = config.width
        self.project = nn.Linear(config.embedding_dim, self.tokens_per_reference * width)
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(config.tokens_per_character, width))
        self.layers = nn.ModuleList(
            EncoderLayer(width, config.num_heads) for _ in range(config.encoder_layers)
        )

    def forward(self, references: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """References f32[B,N,R,D] unit rows, mask bool[B,N,R] → tokens f32[B,N,K,C].

        A slot without any reference gets tokens that mean nothing; the cast's own mask leaves it out.
        """
        b, n, _, dim = references.shape
        features = references.to(self.queries.dtype).flatten(0, 1) * dim**0.5  # unit variance per entry
        tokens = self.norm(
            self.project(features).unflatten(-1, (self.tokens_per_reference, -1)).flatten(1, 2)
        )
        seen = mask.flatten(0, 1)
        seen = seen | ~seen.any(-1, keepdim=True)  # a softmax over nothing is NaN
        seen = seen.repeat_interleave(self.tokens_per_reference, -1)  # [B*N, R*M]
        out = self.queries.expand(b * n, -1, -1)
        for layer in self.layers:
            out = layer(out, tokens, seen)
        return out.view(b, n, *out.shape[1:])


class EncoderLayer(nn.Module):
    """Cross-attention of queries over reference tokens, then a feed-forward; both residual, normalised first."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_query = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width)
        self.to_kv = nn.Linear(width, 2 * width)
        self.to_out = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, queries: torch.Tensor, tokens: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Queries f32[S,K,C], tokens f32[S,M,C], seen bool[S,M] → f32[S,K,C]."""
        q = self.to_q(self.norm_query(queries))
        k, v = self.to_kv(tokens).chunk(2, -1)
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
        pooled = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None, None])
        queries = queries + self.to_out(pooled.transpose(1, 2).flatten(2))
        hidden: torch.Tensor = queries + self.feed_forward(queries)
        return hidden
