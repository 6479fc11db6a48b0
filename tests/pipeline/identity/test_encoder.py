"""References are a set: their order and the padding beside them do not matter."""

from __future__ import annotations

import pytest
import torch

from pipeline.config import IdentityConfig
from pipeline.identity.encoder import ReferenceEncoder


@pytest.fixture(scope="module")
def encoder() -> ReferenceEncoder:
    torch.manual_seed(0)
    config = IdentityConfig(embedding_dim=32, tokens_per_character=3, width=24, encoder_layers=2, num_heads=2)
    return ReferenceEncoder(config).eval()


@pytest.fixture
def references() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.nn.functional.normalize(torch.randn(2, 3, 5, 32, generator=generator), dim=-1)


def test_order_of_references_does_not_matter(encoder: ReferenceEncoder, references: torch.Tensor) -> None:
    mask = torch.arange(5).expand(2, 3, 5) < 4
    order = torch.tensor([3, 1, 4, 0, 2])
    tokens = encoder(references, mask)
    assert tokens.shape == (2, 3, 3, 24)
    torch.testing.assert_close(encoder(references[:, :, order], mask[:, :, order]), tokens, atol=1e-5, rtol=0)


def test_masked_references_are_not_read(encoder: ReferenceEncoder, references: torch.Tensor) -> None:
    mask = torch.arange(5).expand(2, 3, 5) < 2
    other = references.clone()
    other[:, :, 2:] = torch.randn(2, 3, 3, 32)
    torch.testing.assert_close(encoder(other, mask), encoder(references, mask), atol=0, rtol=0)
    alone = encoder(references[:, :, :2], mask[:, :, :2])
    torch.testing.assert_close(encoder(references, mask), alone, atol=1e-5, rtol=0)


def test_characters_are_read_one_by_one(encoder: ReferenceEncoder, references: torch.Tensor) -> None:
    mask = torch.ones(2, 3, 5, dtype=torch.bool)
    order = torch.tensor([2, 0, 1])
    permuted = encoder(references[:, order], mask)
    torch.testing.assert_close(permuted, encoder(references, mask)[:, order], atol=1e-5, rtol=0)


def test_another_face_gives_other_tokens(encoder: ReferenceEncoder, references: torch.Tensor) -> None:
    mask = torch.ones(2, 3, 5, dtype=torch.bool)
    tokens = encoder(references, mask)
    assert (tokens[0, 0] - tokens[0, 1]).abs().max() > 0.1


def test_a_slot_without_references_is_finite_and_teaches_nothing(
    encoder: ReferenceEncoder, references: torch.Tensor
) -> None:
    tokens = encoder(references, torch.zeros(2, 3, 5, dtype=torch.bool))
    tokens.sum().backward()
    assert tokens.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())
