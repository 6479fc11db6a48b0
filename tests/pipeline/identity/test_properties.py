"""What identity promises, in every family, each with its number; ``pytest -s`` prints the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from data_prep.records import InputError
from pipeline import adapters
from pipeline.batch import Batch
from pipeline.identity.attention import CastContext
from pipeline.model import Model
from pipeline.objective import losses, objective
from tests.property_table import MAX_CAST, A, B, Subject, gap

MakeBatch = Callable[..., Batch]


@torch.no_grad()
def test_at_step_0_it_is_the_base_model(subject: Subject) -> None:
    fresh = subject.fresh
    bare = subject.answer(fresh, None)
    found = {"fp32": gap(subject.answer(fresh, subject.cast(fresh)), bare)}
    with torch.autocast("cpu", torch.bfloat16):
        found["bf16 autocast"] = gap(subject.answer(fresh, subject.cast(fresh)), subject.answer(fresh, None))
    adapted = subject.new(trained=False)
    config = replace(subject.config.adapter, kind="lora", rank=2)
    adapters.apply(adapted.transformer, adapted.identity, config, seed=0)
    found["a new LoRA"] = gap(subject.answer(adapted, subject.cast(adapted)), bare)
    for what, difference in found.items():
        subject.note(f"1 step 0 - base model, {what}", difference)
    assert set(found.values()) == {0.0}


@torch.no_grad()
def test_strength_0_is_the_base_model(subject: Subject) -> None:
    model = subject.model
    bare, half, full = (
        subject.answer(model, context)
        for context in (None, subject.cast(model, strength=0.5), subject.cast(model))
    )
    difference = gap(subject.answer(model, subject.cast(model, strength=0.0)), bare)
    subject.note("2 strength 0 - base model", difference)
    subject.note("2 strength 1 - base model (must differ)", gap(full, bare))
    assert difference == 0.0 < (half - bare).norm() < (full - bare).norm()


@torch.no_grad()
def test_a_cast_in_another_order_is_the_same_where_its_slots_come_along(subject: Subject) -> None:
    model, order = subject.model, torch.tensor([2, 0, 1])
    context = subject.cast(model, 3)
    permuted = replace(context, tokens=context.tokens[:, order], mask=context.mask[:, order], routing={})
    first, second = subject.answer(model, context), subject.answer(model, permuted)
    routes = max(
        gap(permuted.routing[layer], torch.cat([logits[..., :1], logits[..., 1:][..., order]], -1))
        for layer, logits in context.routing.items()
    )
    tokens = subject.tokens(model, 3)
    without = gap(subject.answer(model, subject.context(model, tokens[:, order])), first)
    subject.note("3 cast and slots permuted: output", gap(first, second))
    subject.note("3 cast and slots permuted: routing", routes)
    subject.note("3 cast permuted without slots (must differ)", without)
    assert len(context.routing) == 2
    assert gap(first, second) < 1e-5 and routes < 1e-5 and without > 1e-3


@torch.no_grad()
def test_empty_slots_change_nothing_and_casts_of_any_size_work(subject: Subject) -> None:
    model = subject.model
    context = subject.cast(model, 2)
    wide = subject.context(
        model, torch.nn.functional.pad(subject.tokens(model, 2), (0, 0, 0, 0, 0, 6), value=3.0)
    )
    wide = replace(wide, mask=torch.arange(8).expand(2, 8) < 2)
    difference = gap(subject.answer(model, context), subject.answer(model, wide))
    subject.note("4 padded from 2 to 8 slots", difference)
    assert difference < 1e-5
    sizes = [
        n for n in (*range(1, 9), MAX_CAST) if subject.answer(model, subject.cast(model, n)).isfinite().all()
    ]
    assert sizes == [*range(1, 9), MAX_CAST]
    subject.note("4 casts that work", "1-8, 12")
    with pytest.raises(InputError, match=r"cast: 13 characters, but identity\.max_cast is 12; name fewer"):
        subject.cast(model, MAX_CAST + 1)


def test_gradients_reach_a_character_through_its_own_slot_alone(subject: Subject) -> None:
    model = subject.model
    tokens = subject.tokens(model, 2).detach().requires_grad_()
    context = subject.hard(subject.context(model, tokens))
    hidden = torch.randn(2, subject.regions.shape[2], model.family.width)
    added, _ = model.identity.attentions[0](hidden, context)
    shown = added[subject.regions[:, A] > 0].square().sum()
    embedding = model.identity.slots.embedding
    by_token, by_slot = torch.autograd.grad(shown, (tokens, embedding))
    subject.note("5 d(A's region, one layer) / d(B's tokens)", by_token[:, B].abs().max().item())
    subject.note("5 d(A's region, one layer) / d(A's tokens)", by_token[:, A].abs().max().item())
    assert by_token[:, B].abs().max() == by_slot[1:].abs().max() == 0
    assert by_token[:, A].abs().min() > 0 and by_slot[0].abs().max() > 0


def test_the_routing_loss_reaches_every_character_that_is_there(subject: Subject) -> None:
    model = subject.model
    tokens = subject.tokens(model, 3).detach().requires_grad_()
    context = subject.context(model, tokens)
    context = replace(context, mask=torch.tensor([True, True, False]).expand(2, 3))
    velocity = subject.answer(model, context)
    coverage = torch.nn.functional.pad(subject.regions, (0, 0, 0, 1))
    shape = torch.zeros(2, 3, *velocity.shape[2:])
    routing = tuple(context.routing.values())
    prediction = losses.Prediction(
        velocity, velocity, torch.ones(2, velocity.shape[2]), shape, coverage, routing, torch.ones(2).bool()
    )
    (grad,) = torch.autograd.grad(losses.routing(prediction).mean(), tokens)
    subject.note(
        "5 d(routing loss) / d(tokens), least of those there", grad[:, :2].abs().amax((2, 3)).min().item()
    )
    subject.note("5 d(routing loss) / d(tokens) of an empty slot", grad[:, 2].abs().max().item())
    assert grad.isfinite().all() and grad[:, :2].abs().amax((2, 3)).min() > 0 == grad[:, 2].abs().max()


@torch.no_grad()
def test_in_a_hard_layout_a_change_of_one_leaves_what_the_other_answers(subject: Subject) -> None:
    model = subject.model
    before = subject.hard(subject.cast(model))
    changed = before.tokens.clone()
    changed[:, A] = subject.cast(model, 2).tokens.flip(0)[:, A] + 1
    first, answers, outputs = model.identity.attentions[0], [], []
    for context in (before, replace(before, tokens=changed, routing={})):
        handle = first.register_forward_hook(lambda *call: answers.append(call[2][0]))
        outputs.append(subject.answer(model, context))
        handle.remove()
    in_b = subject.regions[:, B] > 0
    subject.note("6 A changed: first layer's answer in B's region", gap(answers[0][in_b], answers[1][in_b]))
    own, leak = (
        subject.within(slot, outputs[1] - outputs[0]).square().mean().sqrt().item() for slot in (A, B)
    )
    subject.note("6 A changed: whole model, RMS change in A's region", own)
    subject.note("6 A changed: whole model, leak to B's region (share)", f"{100 * leak / own:.1f} %")
    assert torch.equal(answers[0][in_b], answers[1][in_b])
    assert gap(answers[0][~in_b], answers[1][~in_b]) > 1e-3 and own > 1e-3


@torch.no_grad()
def test_nobody_is_the_base_model_plus_bias(subject: Subject) -> None:
    model = subject.new()
    empty = replace(subject.cast(model), mask=torch.zeros(2, 2, dtype=torch.bool))
    nobody = torch.eye(3)[0].expand(2, subject.regions.shape[2], 3)
    answers = [subject.answer(model, replace(c, routing={})) for c in (empty, replace(empty, layout=nobody))]
    for attention in model.identity.attentions:
        attention.to_out.weight.zero_()
    bias = subject.answer(model, subject.cast(model))
    difference = max(gap(answer, bias) for answer in answers)
    subject.note("7 nobody in the cast, or in the layout - bias alone", difference)
    assert difference == 0.0 < gap(bias, subject.answer(model, None))


def test_losses_of_an_empty_cast_are_finite(subject: Subject, make_batch: MakeBatch) -> None:
    model, batch = subject.new(), make_batch()
    repeats = subject.num_frames // 3
    empty = replace(
        batch,
        video=batch.video.repeat(1, 1, repeats, 1, 1),
        label_map=torch.zeros(2, subject.num_frames, *batch.label_map.shape[2:], dtype=torch.uint8),
        reference_mask=torch.zeros_like(batch.reference_mask),
        own_mask=torch.zeros_like(batch.own_mask),
        cast_mask=torch.zeros_like(batch.cast_mask),
    )
    scalars = objective.build(subject.config, model, seed=0)(empty)
    scalars["loss"].backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(value.isfinite().all() for value in scalars.values())
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)
    subject.note("7 empty mask: loss and gradients", "finite")


def outcome(subject: Subject, model: Model, context: CastContext) -> tuple[torch.Tensor, dict[str, Any]]:
    """Output and gradients of something that depends on output and routing."""
    out = subject.answer(model, context)
    routed = sum(logits[..., 0].square().mean() for logits in context.routing.values())
    (out.square().mean() + routed).backward()
    return out.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def farthest(one: dict[str, Any], other: dict[str, Any]) -> float:
    assert one.keys() == other.keys()
    return max(gap(gradient, other[name]) for name, gradient in one.items())


def test_activation_checkpointing_changes_nothing(subject: Subject) -> None:
    plain, replayed = subject.new().train(), subject.new().train()
    replayed.checkpoint_activations()
    (out, grads), (again, grads_again) = (outcome(subject, m, subject.cast(m)) for m in (plain, replayed))
    subject.note("8 checkpointing: output", gap(out, again))
    subject.note("8 checkpointing: gradients", farthest(grads, grads_again))
    assert gap(out, again) == 0.0 and farthest(grads, grads_again) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 2])
def test_compiled_blocks_answer_alike(every: int, subject: Subject) -> None:
    """With 2, one block has identity and one has not, and each runs its own program."""
    plain, compiled = subject.new(every=every), subject.new(every=every)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    transformer: Any = compiled.transformer
    for block in getattr(transformer, "blocks", None) or transformer.transformer_blocks:
        block.compile(backend="aot_eager", fullgraph=True)  # a graph break would raise
    context = subject.cast(compiled)
    (out, grads), (again, grads_again) = (
        outcome(subject, plain, subject.cast(plain)),
        outcome(subject, compiled, context),
    )
    programs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    where = {1: "identity in both blocks", 2: "in the second"}[every]
    subject.note(f"8 compiled, {where}: output", gap(out, again))
    subject.note(f"8 compiled, {where}: gradients", farthest(grads, grads_again))
    subject.note(f"8 compiled, {where}: graph breaks, programs", f"0, {programs}")
    assert gap(out, again) < 1e-5 and farthest(grads, grads_again) < 1e-5
    assert len(context.routing) == 2 // every


@torch.no_grad()
def test_bf16_is_near_fp32(subject: Subject) -> None:
    model = subject.model
    full = subject.answer(model, subject.cast(model))
    with torch.autocast("cpu", torch.bfloat16):
        half = subject.answer(model, subject.cast(model))
    share = gap(full, half) / full.abs().max().item()
    subject.note("8 bf16 autocast - fp32, of the largest output", share)
    assert share < 0.05
