"""Routed identity attention: against a plain loop, silent at first, blind to order, padding and other faces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch

from data_prep.records import InputError
from pipeline.batch import Batch
from pipeline.families.contract import Given
from pipeline.identity import routed_read
from pipeline.identity.attention import CastContext, IdentityAttention, num_heads_of
from pipeline.model import Model
from tests.plain_attention import all_at_once, saved_bytes

NewModel = Callable[..., Model]
MakeBatch = Callable[..., Batch]
B, L, N, K, W, C = 2, 7, 3, 4, 16, 12


@pytest.fixture
def attention() -> IdentityAttention:
    torch.manual_seed(0)
    made = IdentityAttention(width=W, token_width=C, num_heads=2)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, 0, 0.5)
    return made


@pytest.fixture
def context() -> CastContext:
    generator = torch.Generator().manual_seed(1)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    return CastContext(torch.randn(B, N, K, C, generator=generator), mask, torch.tensor([0.8, 1.0]))


@pytest.fixture
def hidden() -> torch.Tensor:
    return torch.randn(B, L, W, generator=torch.Generator().manual_seed(2))


def slow(a: IdentityAttention, hidden: torch.Tensor, context: CastContext) -> torch.Tensor:
    """One visual token, one head and one character at a time."""
    out = torch.zeros_like(hidden)
    size = W // a.num_heads
    for b in range(B):
        filled = [n for n in range(N) if context.mask[b, n]]
        for token in range(L):
            x = a.norm(hidden[b, token])
            asked = a.router_q.weight @ x + a.router_q.bias
            scores = [asked @ a.nobody / W**0.5]
            scores += [asked @ a.router_k(context.tokens[b, n].mean(0)) / W**0.5 for n in filled]
            route = torch.stack(scores).softmax(0)
            read = torch.zeros(W)
            for head in range(a.num_heads):
                at = slice(head * size, (head + 1) * size)
                for share, n in zip(route[1:], filled, strict=True):
                    keys, values = a.to_k(context.tokens[b, n])[:, at], a.to_v(context.tokens[b, n])[:, at]
                    weights = (keys @ a.to_q(x)[at] / size**0.5).softmax(0)
                    read[at] += share * (weights @ values)
            out[b, token] = a.to_out(read) * context.strength[b]
    return out


def test_it_is_its_definition(
    attention: IdentityAttention, hidden: torch.Tensor, context: CastContext
) -> None:
    with torch.no_grad():
        added, logits = attention(hidden, context)
        torch.testing.assert_close(added, slow(attention, hidden, context), atol=1e-5, rtol=1e-4)
    assert logits.shape == (B, L, N + 1) and torch.isinf(logits[1, :, 2:]).all()


@pytest.mark.parametrize("layout", [False, True], ids=["routed", "by hand"])
def test_some_tokens_at_a_time_are_all_at_once(
    layout: bool,
    attention: IdentityAttention,
    hidden: torch.Tensor,
    context: CastContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Answers, logits and all gradients, 3 tokens at a time."""
    monkeypatch.setattr(routed_read, "ROWS", 3)
    shares = torch.rand(B, L, N + 1, generator=torch.Generator().manual_seed(4))
    tokens = context.tokens.clone().requires_grad_()
    given = replace(context, tokens=tokens, layout=shares.requires_grad_() if layout else None)
    inputs = [hidden.requires_grad_(), tokens, *attention.parameters(), *([shares] if layout else [])]
    outcomes = []
    for form in (attention, partial(all_at_once, attention)):
        added, logits = form(hidden, given)
        reached = logits[torch.isfinite(logits)]
        total = (added * hidden.detach().cos()).sum() + reached.square().sum()
        outcomes.append((added, reached, *torch.autograd.grad(total, inputs)))
    for one, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-5)


def test_what_is_kept_for_backward_hardly_grows_with_the_cast() -> None:
    attention, hidden, kept = IdentityAttention(128, C, num_heads=4), torch.randn(1, 2048, 128), []
    for n in (1, 8):
        cast = CastContext(torch.randn(1, n, 32, C), torch.ones(1, n, dtype=torch.bool), torch.ones(1))
        kept.append(
            [
                saved_bytes(attention, form, hidden, cast)
                for form in (attention, partial(all_at_once, attention))
            ]
        )
    (one, one_plain), (eight, eight_plain) = kept
    assert eight < 1.3 * one and eight_plain > 3 * one_plain  # grows: logits, keys and values


def test_a_token_routed_to_one_character_cannot_read_another(
    attention: IdentityAttention, hidden: torch.Tensor, context: CastContext
) -> None:
    layout = (
        torch.nn.functional.one_hot(torch.tensor([0, 1, 1, 2, 2, 3, 0]), N + 1).float().expand(B, L, N + 1)
    )
    given = replace(context, layout=layout)
    changed = context.tokens.clone()
    changed[:, 1] = torch.randn(B, K, C)
    with torch.no_grad():
        before, _ = attention(hidden, given)
        after, _ = attention(hidden, replace(given, tokens=changed))
        nothing = attention.to_out(torch.zeros(W)) * context.strength[:, None]
    moved = (before - after).abs().amax((0, 2)) > 1e-4
    assert moved.tolist() == [False, False, False, True, True, False, False]
    torch.testing.assert_close(before[:, 0], nothing)  # nobody adds nothing but the bias


def cast_of(model: Model, batch: Batch, **changes: torch.Tensor) -> CastContext:
    tokens = model.identity(batch.references, batch.reference_mask)
    context = model.identity.context(tokens, batch.cast_mask, torch.ones(len(tokens)))
    return replace(context, **changes)


def run(model: Model, batch: Batch, context: CastContext | None) -> torch.Tensor:
    latents, given = model.family.encode(batch.video).latents, Given(model.family.embed_text(batch.captions))
    return model.velocity(latents, torch.full((len(latents), latents.shape[2]), 0.5), given, context)


def test_untrained_identity_leaves_the_base_model_bit_for_bit(
    new_model: NewModel, make_batch: MakeBatch
) -> None:
    model, batch = new_model(trained=False), make_batch()
    with torch.no_grad():
        assert torch.equal(run(model, batch, cast_of(model, batch)), run(model, batch, None))


def test_strength_zero_is_the_base_model_and_more_is_more(new_model: NewModel, make_batch: MakeBatch) -> None:
    model, batch = new_model(), make_batch()
    with torch.no_grad():
        base = run(model, batch, None)
        moved = [
            (run(model, batch, cast_of(model, batch, strength=torch.full((2,), s))) - base).norm().item()
            for s in (0.0, 0.3, 1.0)
        ]
    assert moved[0] == 0.0 < moved[1] < moved[2]


def test_permuting_the_cast_with_its_slots_permutes_the_result(
    new_model: NewModel, make_batch: MakeBatch
) -> None:
    model, batch = new_model(), make_batch(num_slots=3)
    context = cast_of(model, batch)
    order = torch.tensor([2, 0, 1])
    permuted = replace(context, tokens=context.tokens[:, order], mask=context.mask[:, order], routing={})
    with torch.no_grad():
        first, second = run(model, batch, context), run(model, batch, permuted)
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)
    for layer, logits in context.routing.items():
        moved = torch.cat([logits[..., :1], logits[..., 1:][..., order]], -1)
        torch.testing.assert_close(permuted.routing[layer], moved, atol=1e-5, rtol=0)


def test_slots_bind_so_swapped_characters_differ(new_model: NewModel, make_batch: MakeBatch) -> None:
    model, batch = new_model(), make_batch()
    tokens = model.identity(batch.references, batch.reference_mask)
    mask = torch.ones(2, 2, dtype=torch.bool)
    with torch.no_grad():
        one, other = (
            run(model, batch, model.identity.context(t, mask, torch.ones(2)))
            for t in (tokens, tokens.flip(1))
        )
    assert (one - other).abs().max() > 1e-3


def test_empty_slots_change_nothing(new_model: NewModel, make_batch: MakeBatch) -> None:
    model = new_model()
    narrow, wide = make_batch(num_slots=2), make_batch(num_slots=2)
    pad = torch.nn.functional.pad
    wide = replace(
        wide,
        references=pad(wide.references, (0, 0, 0, 0, 0, 2), value=3.0),
        reference_mask=pad(wide.reference_mask, (0, 0, 0, 2)),
        cast_mask=pad(wide.cast_mask, (0, 2)),
    )
    with torch.no_grad():
        first, second = (run(model, b, cast_of(model, b)) for b in (narrow, wide))
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)


def test_too_large_a_cast_is_refused(new_model: NewModel) -> None:
    model = new_model()
    with pytest.raises(InputError, match=r"5 characters, but identity\.max_cast is 4"):
        model.identity.context(torch.zeros(1, 5, 3, 24), torch.ones(1, 5, dtype=torch.bool), torch.ones(1))


def test_activation_checkpointing_gives_the_same_gradients(
    new_model: NewModel, make_batch: MakeBatch
) -> None:
    batch, gradients = make_batch(), []
    for checkpointed in (False, True):
        model = new_model()
        if checkpointed:
            model.checkpoint_activations()
        context = cast_of(model, batch)
        out = run(model, batch, context)
        routed = sum(logits[..., 0].square().sum() for logits in context.routing.values())
        (out.square().sum() + routed).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    plain, replayed = gradients
    assert {n for n, g in plain.items() if g is None} == {n for n, g in replayed.items() if g is None}
    for name, gradient in plain.items():
        if gradient is not None:
            torch.testing.assert_close(gradient, replayed[name], atol=1e-6, rtol=1e-5, msg=name)


def test_two_models_keep_their_contexts_apart(new_model: NewModel, make_batch: MakeBatch) -> None:
    first, second, batch = new_model(), new_model(), make_batch()
    with torch.no_grad():
        base = run(second, batch, None)
        with first.identity.slot.holding(cast_of(first, batch)):
            assert torch.equal(run(second, batch, None), base)
        assert first.identity.slot.current is None


@pytest.mark.parametrize(
    ("width", "heads"), [(48, 4), (512, 4), (1536, 12), (3072, 24), (5120, 40), (1920, 15)]
)
def test_heads_stay_narrow(width: int, heads: int) -> None:
    assert num_heads_of(width, 4) == heads
