"""What routing is compared with: all characters read at once, and one mean of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from data_prep.records import InputError
from pipeline.config import IdentityConfig
from pipeline.identity.attention import IdentityAttention
from pipeline.identity.network import IdentityNetwork

B, L, N, K, W, C = 2, 5, 3, 4, 16, 12
SMALL = IdentityConfig(embedding_dim=8, tokens_per_character=K, width=C, encoder_layers=1, num_heads=2)
MASK = torch.tensor([[True, True, True], [True, True, False]])


def _network(binding: str) -> IdentityNetwork:
    torch.manual_seed(0)
    network = IdentityNetwork(replace(SMALL, binding=binding), [torch.nn.Identity()], W)  # type: ignore[arg-type]
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.5)
    return network


def _tokens() -> torch.Tensor:
    return torch.randn(B, N, K, C, generator=torch.Generator().manual_seed(1))


def _read(network: IdentityNetwork, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    attention = network.attentions[0]
    hidden = torch.randn(B, L, W, generator=torch.Generator().manual_seed(2))
    added, logits = attention(hidden, network.context(tokens, mask, torch.ones(B)))
    assert logits is None
    return added  # type: ignore[no-any-return]


def _slow(a: IdentityAttention, hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """One sample: each token and head over all rows of tokens [M,C]."""
    out = torch.zeros(L, W)
    size = W // a.num_heads
    keys, values = a.to_k(tokens), a.to_v(tokens)
    for token in range(L):
        x = a.to_q(a.norm(hidden[token]))
        for head in range(a.num_heads):
            at = slice(head * size, (head + 1) * size)
            weights = (keys[:, at] @ x[at] / size**0.5).softmax(0)
            out[token, at] = weights @ values[:, at]
    return a.to_out(out)  # type: ignore[no-any-return]


def test_joint_reads_all_tokens_of_all_who_are_there() -> None:
    network, tokens = _network("joint"), _tokens()
    hidden = torch.randn(B, L, W, generator=torch.Generator().manual_seed(2))
    added = _read(network, tokens, MASK)
    shown = network.context(tokens, MASK, torch.ones(B)).tokens
    for b, filled in ((0, 3), (1, 2)):
        wanted = _slow(network.attentions[0], hidden[b], shown[b, :filled].flatten(0, 1))  # type: ignore[arg-type]
        torch.testing.assert_close(added[b], wanted)


def test_pooled_knows_no_order_and_no_empty_slot() -> None:
    network, tokens = _network("pooled"), _tokens()
    added = _read(network, tokens, MASK)
    torch.testing.assert_close(_read(network, tokens[:, [1, 0, 2]], MASK), added)
    tokens[1, 2] = 99
    torch.testing.assert_close(_read(network, tokens, MASK), added)
    assert network.context(tokens, MASK, torch.ones(B)).tokens.shape == (B, 1, K + 1, C)


@pytest.mark.parametrize("binding", ["joint", "pooled"])
def test_a_layout_is_refused_where_nothing_is_routed(binding: str) -> None:
    with pytest.raises(InputError, match=f"identity.binding is {binding}"):
        _network(binding).context(_tokens(), MASK, torch.ones(B), torch.ones(B, L, N + 1))
