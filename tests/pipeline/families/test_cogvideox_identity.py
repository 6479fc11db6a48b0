"""The identity network in CogVideoX's joint blocks, and such a model on its way to disk and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import adapters
from pipeline import model as models
from pipeline.batch import Batch
from pipeline.config import CogVideoXConfig, FamilyConfig, IdentityConfig, ModelConfig
from pipeline.families.contract import Given
from pipeline.identity.attention import CastContext
from pipeline.model import Model
from pipeline.objective import objective
from pipeline.objective.preservation import Estimate, identity_preservation
from pipeline.objective.processes import VPrediction
from tests.plain_recogniser import PlainRecogniser
from tests.small_cogvideox import TEXT_TOKENS, make_model

ModelOf = Callable[..., Model]
IDENTITY = IdentityConfig(
    embedding_dim=32, tokens_per_character=3, width=24, encoder_layers=1, num_heads=2, max_cast=4
)


@pytest.fixture(scope="module")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> ModelOf:
    """A model of a kind, with its identity filled as after training where that is asked for."""
    root = tmp_path_factory.mktemp("cogvideox")

    def make(name: str = "5b", trained: bool = True, **adapter: Any) -> Model:
        folder = root / name if (root / name).is_dir() else make_model(root / name, name)
        family = CogVideoXConfig(pretrained=str(folder), text_tokens=TEXT_TOKENS, frozen_dtype="fp32")
        config = ModelConfig(family=FamilyConfig(name="cogvideox", cogvideox=family), identity=IDENTITY)
        config = replace(config, adapter=replace(config.adapter, **adapter))
        model = models.create(config, [], seed=1)
        generator = torch.Generator().manual_seed(9)
        for attention in model.identity.attentions if trained else ():
            attention.to_out.weight.data.normal_(0, 0.2, generator=generator)
            attention.nobody.data.normal_(0, 1, generator=generator)
        return model

    return make


@pytest.fixture
def batch(make_batch: Callable[..., Batch]) -> Batch:
    """Videos of 9 frames: 3 latent frames."""
    three = make_batch()
    return replace(
        three, video=three.video.repeat(1, 1, 3, 1, 1), label_map=three.label_map.repeat(1, 3, 1, 1)
    )


def cast_of(model: Model, batch: Batch, strength: float = 1.0) -> CastContext:
    tokens = model.identity(batch.references, batch.reference_mask)
    return model.identity.context(tokens, batch.cast_mask, torch.full((2,), strength))


def answer(model: Model, context: CastContext | None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    missing = model.family.grid.missing(3)
    latents = torch.randn(2, 4, 3 + missing, 4, 6, generator=generator)
    level = torch.tensor([[0.2], [0.9]]).expand(2, 3 + missing)
    given = Given(torch.randn(2, TEXT_TOKENS, 16, generator=generator))
    return model.velocity(latents, level, given, context)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["2b", "5b", "1.5"])
def test_untrained_identity_leaves_the_base_bit_for_bit_and_so_does_strength_zero(
    kind: str, model_of: ModelOf, batch: Batch
) -> None:
    fresh, trained = model_of(kind, trained=False), model_of(kind)
    bare = answer(fresh, None)
    assert torch.equal(answer(fresh, cast_of(fresh, batch)), bare)
    assert torch.equal(answer(trained, cast_of(trained, batch, 0.0)), bare)
    half, full = (
        (answer(trained, cast_of(trained, batch, strength)) - bare).abs().mean() for strength in (0.5, 1.0)
    )
    assert 0 < half < full


@pytest.mark.parametrize("kind", ["2b", "5b", "1.5"])
def test_the_router_sees_the_tokens_of_the_grid(kind: str, model_of: ModelOf, batch: Batch) -> None:
    model = model_of(kind)
    context = cast_of(model, batch)
    answer(model, context)
    grid = model.family.grid
    tokens = grid.tokens(grid.coverage(batch.label_map, 2))
    assert tokens.shape[2] == 2 * 3 * {"1.5": 2}.get(kind, 3)
    assert {logits.shape for logits in context.routing.values()} == {(2, tokens.shape[2], 3)}
    assert len(context.routing) == 2


def test_gradients_reach_untrained_identity_through_the_gate(model_of: ModelOf, batch: Batch) -> None:
    model = model_of(trained=False)
    answer(model, cast_of(model, batch)).square().mean().backward()
    for attention in model.identity.attentions:
        assert attention.to_out.weight.grad.abs().max() > 1e-5


@torch.no_grad()
def test_permuting_the_cast_with_its_slots_permutes_the_routes(model_of: ModelOf, batch: Batch) -> None:
    model = model_of()
    context, order = cast_of(model, batch), torch.tensor([1, 0])
    permuted = replace(context, tokens=context.tokens[:, order], mask=context.mask[:, order], routing={})
    torch.testing.assert_close(answer(model, context), answer(model, permuted), atol=1e-5, rtol=0)
    for layer, logits in context.routing.items():
        moved = torch.cat([logits[..., :1], logits[..., 1:][..., order]], -1)
        torch.testing.assert_close(permuted.routing[layer], moved, atol=1e-5, rtol=0)


@torch.no_grad()
def test_in_a_hard_layout_a_change_of_one_leaves_what_the_other_answers(
    model_of: ModelOf, batch: Batch
) -> None:
    """In the first block; behind it the block's own attention carries what changed to all tokens."""
    model = model_of()
    added: list[torch.Tensor] = []
    model.identity.attentions[0].register_forward_hook(lambda *call: added.append(call[2][0]))
    grid = model.family.grid
    shares = (grid.tokens(grid.coverage(batch.label_map, 2)) > 0.5).float().transpose(1, 2)
    layout = torch.cat([1 - shares.sum(-1, keepdim=True), shares], -1)
    context = replace(cast_of(model, batch), layout=layout)
    tokens = context.tokens.clone()
    tokens[:, 0] += 1
    outcomes = [answer(model, replace(context, tokens=t, routing={})) for t in (context.tokens, tokens)]
    other, first = shares[..., 1] > 0, shares[..., 0] > 0
    assert other.any() and first.any()
    assert torch.equal(added[0][~first], added[1][~first])
    assert (added[0][first] - added[1][first]).abs().max() > 1e-3
    assert not torch.equal(*outcomes)


@pytest.mark.parametrize("kind", ["5b", "1.5"])
def test_activation_checkpointing_gives_the_same_gradients(
    kind: str, model_of: ModelOf, batch: Batch
) -> None:
    grads = []
    for checkpointing in (False, True):
        model = model_of(kind)
        if checkpointing:
            model.checkpoint_activations()
        model.train()
        answer(model, cast_of(model, batch)).square().mean().backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    assert all(torch.equal(grads[0][name], grads[1][name]) for name in grads[0])


@pytest.mark.parametrize("kind", ["2b", "5b", "1.5"])
def test_the_objective_trains_all_there_is(kind: str, model_of: ModelOf, batch: Batch) -> None:
    """In 1.5 the frame that fills the first token is noised and counted like the others, as its authors train."""
    model = model_of(kind)
    trained = objective.build(model.config, model, seed=0)
    scalars = trained(batch)
    assert set(scalars) >= {"loss", "loss_diffusion", "loss_mask", "loss_routing"}
    scalars["loss"].backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == set()
    prediction = trained._predict(batch, cast_of(model, batch), trained.config.noise, None).prediction
    assert prediction.velocity.shape[2] == prediction.coverage.shape[2] == (4 if kind == "1.5" else 3)


@dataclass(frozen=True, eq=False)
class Sure(VPrediction):
    """Takes the model to know the clean latents, whatever it answers."""

    truth: torch.Tensor | None = None

    def clean(self, noisy: torch.Tensor, velocity: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        assert self.truth is not None and self.truth.shape == noisy.shape
        return self.truth


@torch.no_grad()
@pytest.mark.parametrize("kind", ["5b", "1.5"])
def test_the_identity_loss_sees_the_frames_that_the_label_map_is_of(
    kind: str, model_of: ModelOf, batch: Batch
) -> None:
    """In 1.5 not the frame that fills the first token: what is decoded is the video, from its first frame on."""
    model = model_of(kind)
    losses = replace(model.config.losses, identity=1.0, identity_min_face_px=4)
    noises = replace(model.config.noise, cast_drop=0.0)
    config = replace(model.config, losses=losses, noise=noises)
    made = objective.build(config, model, seed=0, faces=PlainRecogniser())  # type: ignore[arg-type]
    family: Any = model.family
    latents = family.encode(batch.video).latents
    family.process = Sure(family.process.alphas, family.process.settings, family.grid.filled(latents))
    estimate = Estimate(
        family.decode(latents),
        batch.label_map,
        batch.references,
        batch.reference_mask,
        batch.cast_mask,
        torch.full((len(latents),), 0.1),
    )
    expected = identity_preservation(estimate, PlainRecogniser(), 0.4, losses.identity_drift, 4).mean()
    assert expected > 0.1
    torch.testing.assert_close(made(batch, level=0.05)["loss_identity"], expected)


def test_it_learns_a_batch(model_of: ModelOf, batch: Batch) -> None:
    model = model_of(trained=False)
    trained = objective.build(model.config, model, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        scalars = trained(batch)
        losses.append(scalars["loss_diffusion"].item())
        optimizer.zero_grad()
        scalars["loss"].backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_an_export_holds_what_the_run_changed(
    kind: str, model_of: ModelOf, batch: Batch, tmp_path: Path
) -> None:
    model = model_of("1.5", kind=kind, rank=2, alpha=5.0)
    adapters.apply(model.transformer, model.identity, model.config.adapter, seed=0)
    model.base_changed = kind == "full"
    with torch.no_grad():
        for name, parameter in model.transformer.named_parameters():
            if kind == "full" or "lora_B" in name:
                parameter.add_(torch.full_like(parameter, 0.01))
    models.save(model, tmp_path)
    loaded = models.load(tmp_path)
    assert (tmp_path / "transformer").is_dir() == (kind == "full")
    with torch.no_grad():
        assert torch.equal(answer(loaded, cast_of(loaded, batch)), answer(model, cast_of(model, batch)))


@torch.no_grad()
def test_its_lora_loads_into_the_pipeline(model_of: ModelOf, tmp_path: Path) -> None:
    from diffusers import CogVideoXPipeline
    from safetensors.torch import load_file

    model = model_of(kind="lora", rank=4, alpha=4.0)
    bare = answer(model, None)
    adapters.apply(model.transformer, model.identity, model.config.adapter, seed=0)
    for name, parameter in model.transformer.named_parameters():
        if "lora_B" in name:
            parameter.fill_(0.05)
    adapters.save_lora(model.transformer, tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    named = {name.replace(adapters.PEFT_PREFIX, "transformer."): value for name, value in weights.items()}
    pipeline = CogVideoXPipeline.from_pretrained(model.config.family.cogvideox.pretrained)
    pipeline.load_lora_weights(named)
    expected = answer(model, None)
    assert (expected - bare).abs().max() > 1e-3
    model.family.transformer = pipeline.transformer  # type: ignore[misc]
    torch.testing.assert_close(answer(model, None), expected, atol=1e-6, rtol=0)
