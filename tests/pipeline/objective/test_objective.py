"""The objective's answer depends on samples alone, reaches every trained parameter, and can be learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch

from pipeline import adapters
from pipeline.batch import Batch
from pipeline.config import LossConfig, ModelConfig, NoiseConfig
from pipeline.families.contract import Given
from pipeline.model import Model
from pipeline.objective import noise, objective
from pipeline.objective.preservation import Estimate, identity_preservation
from tests.plain_recogniser import PlainRecogniser

NewModel = Callable[..., Model]
MakeBatch = Callable[..., Batch]


def rows(batch: Batch, at: slice) -> Batch:
    values = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return replace(batch, **{name: value[at] for name, value in values.items() if value is not None})


def test_it_answers_named_scalars(
    new_model: NewModel, model_config: ModelConfig, make_batch: MakeBatch
) -> None:
    batch = make_batch()
    scalars = objective.build(model_config, new_model(), seed=0, shown=(batch.cast[0][1],))(batch)
    named = {"loss_diffusion", "loss_mask", "loss_routing"}
    quarters = {f"loss_diffusion_at_{q}" for q in ("0.00_0.25", "0.25_0.50", "0.50_0.75", "0.75_1.00")}
    curves = quarters | {f"mask_error/{batch.cast[0][1]}"}
    assert set(scalars) == {"loss", "router_accuracy", "cross_face_share", "visual_tokens"} | named | curves
    assert all(value.isfinite().all() for value in scalars.values())
    assert all(scalars[name].shape == ((2,) if name in curves else ()) for name in scalars)
    sums = torch.stack([scalars[name] for name in quarters]).sum(0)  # every sample is in one quarter
    torch.testing.assert_close(sums, torch.stack([2 * scalars["loss_diffusion"], torch.tensor(2.0)]))
    weights = model_config.losses
    total = sum(getattr(weights, name.removeprefix("loss_")) * scalars[name] for name in named)
    torch.testing.assert_close(scalars["loss"], total)


def test_a_loss_without_weight_is_left_out(
    new_model: NewModel, model_config: ModelConfig, make_batch: MakeBatch
) -> None:
    config = replace(model_config, losses=LossConfig(mask=0.0, routing=0.0))
    scalars = objective.build(config, new_model(), seed=0)(make_batch())
    assert "loss_mask" not in scalars and torch.equal(scalars["loss"], scalars["loss_diffusion"])


def test_samples_answer_alike_in_any_batch(
    new_model: NewModel, model_config: ModelConfig, make_batch: MakeBatch
) -> None:
    made, batch = objective.build(model_config, new_model(), seed=3), make_batch(num_samples=4)
    with torch.no_grad():
        whole = made(batch)
        parts = [made(rows(batch, slice(i, i + 1))) for i in range(4)]
    for name, value in whole.items():
        together = torch.stack([part[name] for part in parts])
        mean = together.mean() if value.ndim == 0 else together.sum(0)
        torch.testing.assert_close(value, mean, atol=2e-6, rtol=1e-5, msg=name)


def test_seed_and_position_decide_what_is_drawn(
    new_model: NewModel, model_config: ModelConfig, make_batch: MakeBatch
) -> None:
    model, batch = new_model(), make_batch()
    later = replace(batch, positions=batch.positions + 1)
    with torch.no_grad():
        first, again = (objective.build(model_config, model, seed=0)(batch)["loss"] for _ in range(2))
        others = [
            objective.build(model_config, model, seed=0)(later),
            objective.build(model_config, model, seed=1)(batch),
        ]
    assert torch.equal(first, again)
    assert all(not torch.equal(first, other["loss"]) for other in others)


@pytest.mark.parametrize(("probability", "share"), [(1.0, 1.0), (0.0, 0.0)])
def test_cross_face_share_says_what_was_shown(
    probability: float, share: float, new_model: NewModel, model_config: ModelConfig, make_batch: MakeBatch
) -> None:
    config = replace(model_config, noise=NoiseConfig(cross_face=probability))
    assert objective.build(config, new_model(), seed=0)(make_batch())["cross_face_share"].item() == share


def test_a_dropped_cast_is_not_seen_by_the_transformer(
    new_model: NewModel, model_config: ModelConfig, make_batch: MakeBatch
) -> None:
    drawn = replace(model_config, noise=NoiseConfig(cast_drop=1.0, text_drop=1.0, cross_face=1.0))
    made, batch = objective.build(drawn, new_model(), seed=0), make_batch()
    strangers = replace(batch, references=batch.references.flip(0), captions=("other", "words"))
    with torch.no_grad():
        one, other = made(batch), made(strangers)
    assert torch.equal(one["loss_diffusion"], other["loss_diffusion"])
    assert not torch.equal(one["loss_routing"], other["loss_routing"])  # the router is taught all the same


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_every_trainable_parameter_gets_a_gradient(
    kind: str, new_model: NewModel, model_config: ModelConfig, make_batch: MakeBatch
) -> None:
    model = new_model()
    config = replace(model_config.adapter, kind=kind, rank=2)  # type: ignore[arg-type]
    adapters.apply(model.transformer, model.identity, config, seed=0)
    objective.build(model_config, model, seed=0)(make_batch())["loss"].backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_it_learns_who_is_where(
    new_model: NewModel, model_config: ModelConfig, make_batch: MakeBatch
) -> None:
    drawn, weights = NoiseConfig(cast_drop=0.0, text_drop=0.0), LossConfig(routing=1.0)
    config = replace(model_config, noise=drawn, losses=weights)
    model = new_model(trained=False, config=config)
    made, batch = objective.build(config, model, seed=0), make_batch(num_samples=4)
    groups = adapters.trainable_groups(model.transformer, model.identity, config.adapter)
    optimizer = torch.optim.AdamW(groups)
    history = []
    for step in range(120):
        scalars = made(replace(batch, positions=torch.arange(4) + 4 * step))
        scalars["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        history.append(scalars["router_accuracy"].item())
    assert history[0] < 0.5 and sum(history[-20:]) / 20 > 0.7  # above the noise level of a step


def test_half_precision_weights_leave_losses_and_codec_in_full(
    new_model: NewModel, model_config: ModelConfig, make_batch: MakeBatch
) -> None:
    batch = make_batch()
    full = objective.build(model_config, new_model(), seed=0)(batch)
    model = new_model().bfloat16()
    half = objective.build(model_config, model, seed=0)(batch)
    half["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    for name, value in half.items():
        assert value.dtype == torch.float32, name
        torch.testing.assert_close(value, full[name], atol=0.05, rtol=0.05, msg=name)


def with_identity_loss(model_config: ModelConfig, model: Model) -> objective.DiffusionObjective:
    losses = LossConfig(diffusion=0.0, mask=0.0, routing=0.0, identity=0.5, identity_min_face_px=4)
    config = replace(model_config, losses=losses, noise=replace(model_config.noise, cast_drop=0.0))
    return objective.build(config, model, seed=0, faces=PlainRecogniser())  # type: ignore[arg-type]


def test_the_identity_loss_looks_at_the_decoded_estimate(
    new_model: NewModel, model_config: ModelConfig, make_batch: MakeBatch
) -> None:
    model, batch = new_model(), make_batch()
    made = with_identity_loss(model_config, model)
    scalars = made(batch, level=0.2)
    torch.testing.assert_close(scalars["loss"], 0.5 * scalars["loss_identity"])
    assert made(batch, level=0.9)["loss_identity"] == 0.0  # nobody is to be seen in such an estimate

    drawn = replace(made.config.noise, text_drop=0.0, cross_face=1.0)
    references = noise.choose_references(drawn, 0, batch)
    tokens = model.identity(references.embeddings, references.mask)
    context = model.identity.context(tokens, batch.cast_mask, torch.ones(len(tokens)))
    latents = model.family.encode(batch.video).latents
    eps = noise.noise_like(latents, 0, batch.positions)
    noisy = 0.8 * latents + 0.2 * eps
    level = torch.full((len(latents), latents.shape[2]), 0.2)
    velocity = model.velocity(noisy, level, Given(model.family.embed_text(batch.captions)), context)
    estimate = Estimate(
        model.family.decode(noisy - 0.2 * velocity),
        batch.label_map,
        batch.references,
        batch.reference_mask,
        batch.cast_mask,
        torch.full((len(latents),), 0.2),
    )
    expected = identity_preservation(estimate, PlainRecogniser(), 0.4, 0.1, 4).mean()
    torch.testing.assert_close(scalars["loss_identity"], expected)
    assert scalars["loss_identity"] > 0.1


def test_the_identity_loss_teaches_the_transformer(
    new_model: NewModel, model_config: ModelConfig, make_batch: MakeBatch
) -> None:
    model, batch = new_model(), make_batch()
    made = with_identity_loss(model_config, model)
    optimizer = torch.optim.Adam(model.transformer.parameters(), lr=2e-3)
    curve = []
    for _ in range(12):
        scalars = made(batch, level=0.2)
        optimizer.zero_grad()
        scalars["loss"].backward()
        optimizer.step()
        curve.append(scalars["loss_identity"].item())
    assert curve[-1] < 0.9 * curve[0]
