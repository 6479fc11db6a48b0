"""The low-frequency path through the real transformers of each family: the base's own answer until trained and
at strength 0, then what one with a wider input convolution answers; and through objective, bank and export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from data_prep.records import InputError
from pipeline import adapters
from pipeline import model as models
from pipeline.batch import Batch
from pipeline.config import (
    CogVideoXConfig,
    FamilyConfig,
    GenerateConfig,
    ModelConfig,
    NoiseConfig,
    ScheduleConfig,
    WanConfig,
)
from pipeline.families.contract import Given
from pipeline.generate import LoadedRun, Scene, generate, scene_of
from pipeline.identity import canvas
from pipeline.identity.bank import BankEntry, IdentityBank
from pipeline.identity.tokens import fingerprint, tokens_of
from pipeline.model import Model
from pipeline.objective import objective
from tests.small_cogvideox import TEXT_TOKENS, make_model
from tests.small_wan import make_wan

MakeBatch = Callable[..., Batch]
ModelOf = Callable[..., Model]
KINDS = ("tiny", "wan t2v", "wan i2v", "cogvideox 2b", "cogvideox 1.5", "cogvideox 5b-i2v")
TEXT_DIM = {"tiny": 16, "wan": 16, "cogvideox": 16}


@pytest.fixture(scope="module")
def model_of(
    model_config: ModelConfig, videos: list[torch.Tensor], tmp_path_factory: pytest.TempPathFactory
) -> ModelOf:
    """A model of a kind; ``trained``: its canvases and identity attention matter; ``path`` whether it has any."""
    root = tmp_path_factory.mktemp("models")

    def family(kind: str) -> FamilyConfig:
        name, _, published = kind.partition(" ")
        if name == "tiny":
            return model_config.family
        folder, make = root / kind, {"wan": make_wan, "cogvideox": make_model}[name]
        found = str(folder if folder.is_dir() else make(folder, published))  # type: ignore[operator]
        if name == "wan":
            return FamilyConfig(name, wan=WanConfig(found, text_tokens=TEXT_TOKENS, frozen_dtype="fp32"))
        config = CogVideoXConfig(found, text_tokens=TEXT_TOKENS, frozen_dtype="fp32")
        return FamilyConfig(name, cogvideox=config)

    def make(kind: str = "tiny", trained: bool = False, path: bool = True, **changes: Any) -> Model:
        identity = replace(model_config.identity, low_frequency=path)
        model = models.create(ModelConfig(family=family(kind), identity=identity, **changes), videos, seed=1)
        if trained:
            fill(model)
        return model

    return make


def fill(model: Model) -> None:
    generator = torch.Generator().manual_seed(9)
    for attention in model.identity.attentions:
        attention.to_out.weight.data.normal_(0, 0.2, generator=generator)
    if model.identity.low_frequency is not None:
        model.identity.low_frequency.embed.weight.data.normal_(0, 0.2, generator=generator)


def pictures(batch: Batch) -> Batch:
    """The batch with pictures of its characters, outside and own, and their landmarks."""
    b, n = batch.cast_mask.shape
    generator = torch.Generator().manual_seed(4)
    coarse = torch.randint(0, 256, (b, n, 2, 7, 7, 3), generator=generator, dtype=torch.uint8)
    crops = coarse.repeat_interleave(16, 3).repeat_interleave(16, 4)
    return replace(batch, pictures=crops, landmarks=20 + 70 * torch.rand(b, n, 2, 5, 2, generator=generator))


def asked(model: Model, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, Given]:
    """Noisy latents of 9 frames of 32x48, their levels, and what else the transformer is told."""
    grid, generator = model.family.grid, torch.Generator().manual_seed(7)
    t, h, w = grid.size(9, 32, 48)
    t += grid.missing(t)
    channels = None
    latents = torch.randn(2, model.family.latent_channels, t, h, w, generator=generator)
    level = torch.tensor([[0.2], [0.9]]).expand(2, t)
    image = None
    if model.family.outline.pictured:
        video = torch.rand(2, 3, 9, 32, 48, generator=generator) * 2 - 1
        encoded = model.family.encode(video)
        channels, image = encoded.channels, encoded.image
    text = torch.randn(2, TEXT_TOKENS, 16, generator=generator)
    return latents, level, Given(text, channels, image)


def context_of(model: Model, batch: Batch, strength: float) -> Any:
    tokens = model.identity(batch.references, batch.reference_mask)
    latents = None
    if model.identity.low_frequency is not None:
        assert batch.pictures is not None and batch.landmarks is not None
        drawn = canvas.canvases(batch.pictures[:, :, 0], batch.landmarks[:, :, 0], batch.cast_mask, (32, 48))
        latents = strength * model.encode_canvases(drawn)
    return model.identity.context(tokens, batch.cast_mask, torch.full((2,), strength), canvases=latents)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_until_trained_and_at_strength_zero_it_is_the_base_bit_for_bit(
    kind: str, model_of: ModelOf, make_batch: MakeBatch
) -> None:
    batch = pictures(make_batch())
    fresh, trained = model_of(kind), model_of(kind, trained=True)
    bare = fresh.velocity(*asked(fresh, batch), None)
    assert torch.equal(fresh.velocity(*asked(fresh, batch), context_of(fresh, batch, 1.0)), bare)
    assert torch.equal(trained.velocity(*asked(trained, batch), context_of(trained, batch, 0.0)), bare)
    half, full = (
        (trained.velocity(*asked(trained, batch), context_of(trained, batch, s)) - bare).abs().mean()
        for s in (0.5, 1.0)
    )
    assert 0 < half < full


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_an_input_convolution_that_is_wider_by_the_canvases(
    kind: str, model_of: ModelOf, make_batch: MakeBatch
) -> None:
    """A second transformer of diffusers, made with more input channels, reads latents and canvases side by side."""
    model, batch = model_of(kind, trained=True), pictures(make_batch())
    path = model.identity.low_frequency
    assert path is not None
    for attention in model.identity.attentions:
        attention.to_out.weight.zero_()
    context = context_of(model, batch, 1.0)
    seen: list[torch.Tensor] = []
    entrance = model.family.entrance
    hooks = [entrance.module.register_forward_hook(lambda m, a, out: seen.append(out))]
    inputs: list[tuple[Any, ...]] = []
    hooks.append(entrance.module.register_forward_pre_hook(lambda m, a: inputs.append(a)))
    model.velocity(*asked(model, batch), context)
    for hook in hooks:
        hook.remove()
    cells = inputs[0][-1]
    cells = cells.transpose(1, 2) if entrance.joint else cells  # [B,C,t,h,w]
    beside = torch.zeros(2, entrance.channels, *cells.shape[2:])
    beside[:, :, :2] = context.canvases
    wide = wider(model, cells.shape[1])
    both = torch.cat([cells, beside], 1)
    answer = wide(inputs[0][0], both.transpose(1, 2)) if entrance.joint else wide(both)
    torch.testing.assert_close(seen[0], answer, atol=2e-5, rtol=1e-5)


def wider(model: Model, channels: int) -> torch.nn.Module:
    """The entrance of a fresh transformer of the family's class that reads the canvases' channels too."""
    transformer: Any = model.transformer
    path = model.identity.low_frequency
    assert path is not None
    more = path.embed.weight.data
    name = "patch_embed" if model.family.entrance.joint else "patch_embedding"
    settings = dict(transformer.config) | {"in_channels": channels + model.family.entrance.channels}
    fresh: torch.nn.Module = getattr(type(transformer).from_config(settings), name)
    old = getattr(transformer, name)
    state = {key: value.clone() for key, value in old.state_dict().items()}
    weight = next(key for key in state if key in ("weight", "proj.weight"))
    if state[weight].ndim == 5:
        state[weight] = torch.cat([state[weight], more], 1)
    elif state[weight].ndim == 4:
        state[weight] = torch.cat([state[weight], more[:, :, 0]], 1)
    else:  # 1.5's linear layer reads a patch's pixels, channels last but for time: p_t, p, p after the channels
        p_t, p = transformer.config.patch_size_t, transformer.config.patch_size
        both = torch.cat([state[weight].unflatten(1, (channels, p_t, p, p)), more], 1)
        state[weight] = both.flatten(1)
    fresh.load_state_dict(state)
    return fresh


@torch.no_grad()
def test_a_video_of_one_latent_frame_is_given_the_faces(model_of: ModelOf, make_batch: MakeBatch) -> None:
    model, batch = model_of(trained=True), pictures(make_batch())
    context = context_of(model, batch, 1.0)
    latents, level, given = asked(model, batch)
    one = model.velocity(latents[:, :, :1], level[:, :1], given, context)
    other = replace(context, canvases=context.canvases.clone(), routing={})
    other.canvases[:, :, 1] += 1
    assert torch.equal(one, model.velocity(latents[:, :, :1], level[:, :1], given, other))
    other.canvases[:, :, 0] += 1
    assert not torch.equal(one, model.velocity(latents[:, :, :1], level[:, :1], given, other))


def test_gradients_come_through_the_canvases_alone(model_of: ModelOf, make_batch: MakeBatch) -> None:
    model, batch = model_of(), pictures(make_batch())
    assert model.identity.low_frequency is not None
    weight = model.identity.low_frequency.embed.weight
    context = context_of(model, batch, 1.0)
    answer = model.velocity(*asked(model, batch), replace(context, canvases=None))
    assert torch.autograd.grad(answer.sum(), weight, allow_unused=True) == (None,)
    dark = replace(context, canvases=torch.zeros_like(context.canvases), routing={})
    (none,) = torch.autograd.grad(model.velocity(*asked(model, batch), dark).sum(), weight)
    (some,) = torch.autograd.grad(
        model.velocity(*asked(model, batch), replace(context, routing={})).sum(), weight
    )
    assert not none.any() and some.abs().max() > 0


def losses(config: ModelConfig, model: Model, batch: Batch) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        found: dict[str, torch.Tensor] = objective.build(config, model, seed=0)(batch)
    return found


def test_own_draws_show_the_own_face_and_others_the_reference(
    model_of: ModelOf, make_batch: MakeBatch
) -> None:
    batch = pictures(make_batch())
    assert batch.pictures is not None
    changed = {place: batch.pictures.clone() for place in (0, 1)}
    for place, value in changed.items():
        value[:, :, place] = 255 - value[:, :, place]
    for cross_face, read in ((0.0, 1), (1.0, 0)):
        drawn = NoiseConfig(cross_face=cross_face, cast_drop=0.0)
        model = model_of(trained=True, noise=drawn)
        plain = losses(model.config, model, batch)["loss_diffusion"]
        for place, value in changed.items():
            other = losses(model.config, model, replace(batch, pictures=value))["loss_diffusion"]
            assert torch.equal(plain, other) == (place != read)


def test_a_dropped_cast_is_not_drawn(model_of: ModelOf, make_batch: MakeBatch) -> None:
    batch = pictures(make_batch())
    assert batch.pictures is not None
    model = model_of(trained=True, noise=NoiseConfig(cast_drop=1.0))
    other = replace(batch, pictures=255 - batch.pictures)
    one, two = (losses(model.config, model, some)["loss_diffusion"] for some in (batch, other))
    assert torch.equal(one, two)


def test_samples_answer_alike_in_any_batch(model_of: ModelOf, make_batch: MakeBatch) -> None:
    model, batch = model_of(trained=True), pictures(make_batch(num_samples=3))

    def rows(at: slice) -> Batch:
        values = {f.name: getattr(batch, f.name) for f in fields(batch)}
        return replace(batch, **{name: value[at] for name, value in values.items() if value is not None})

    whole = losses(model.config, model, batch)["loss_diffusion"]
    parts = [losses(model.config, model, rows(slice(k, k + 1)))["loss_diffusion"] for k in range(3)]
    torch.testing.assert_close(whole, torch.stack(parts).mean(), atol=2e-6, rtol=1e-5)


def test_in_the_coarse_phase_only_the_canvases_learn_and_count(
    model_of: ModelOf, make_batch: MakeBatch
) -> None:
    schedule = ScheduleConfig(coarse=0.5, fade_in=0.2, losses=("routing",))
    batch = pictures(make_batch())
    model = model_of(noise=NoiseConfig(cast_drop=0.0), schedule=schedule)
    adapters.apply(model.transformer, model.identity, model.config.adapter, seed=0)
    found = {}
    for progress in (0.4, 0.6, 0.7):
        done = torch.full((2,), progress, dtype=torch.float64)
        scalars = objective.build(model.config, model, seed=0)(replace(batch, progress=done))
        scalars["loss"].backward()
        attention = sum(float(a.to_out.weight.grad.abs().max()) for a in model.identity.attentions)
        router = sum(float(a.router_q.weight.grad.abs().max()) for a in model.identity.attentions)
        assert model.identity.low_frequency is not None
        coarse = float(model.identity.low_frequency.embed.weight.grad.abs().max())  # type: ignore[union-attr]
        found[progress] = (scalars["fine_share"].item(), attention, router, coarse)
        weights = model.config.losses
        total = scalars["loss_diffusion"] + weights.mask * scalars["loss_mask"]
        total = total + weights.routing * found[progress][0] * scalars["loss_routing"]
        torch.testing.assert_close(scalars["loss"], total)
        model.zero_grad()
    assert [share for share, *_ in found.values()] == pytest.approx([0, 0.5, 1])
    assert found[0.4][1:3] == (0, 0) and min(found[0.6][1:3]) > 0
    assert all(coarse > 0 for *_, coarse in found.values())


def test_it_comes_back_from_an_export(model_of: ModelOf, make_batch: MakeBatch, tmp_path: Path) -> None:
    model, batch = model_of(trained=True), pictures(make_batch())
    with torch.no_grad():
        models.save(model, tmp_path)
        loaded = models.load(tmp_path)
        one, two = (m.velocity(*asked(m, batch), context_of(m, batch, 1.0)) for m in (model, loaded))
    assert torch.equal(one, two)


def test_other_parts_are_drawn_as_they_are_without_it(model_of: ModelOf) -> None:
    with_path, without = model_of().identity.state_dict(), model_of(path=False).identity.state_dict()
    assert with_path.keys() - without.keys() == {"low_frequency.embed.weight"}
    assert all(torch.equal(with_path[name], without[name]) for name in without)


def test_a_bank_with_pictures_draws_and_one_without_says_whom_it_lacks(
    model_of: ModelOf, make_batch: MakeBatch, tmp_path: Path
) -> None:
    model, batch = model_of(trained=True).eval(), pictures(make_batch())
    assert batch.pictures is not None and batch.landmarks is not None
    entries = [
        BankEntry(
            name,
            tokens_of(model.identity.encoder, batch.references[0, slot]),
            batch.references[0, slot],
            network=fingerprint(model.identity.encoder),
            picture=batch.pictures[0, slot, 0],
            landmarks=batch.landmarks[0, slot, 0],
        )
        for slot, name in enumerate(("anna", "ben"))
    ]
    IdentityBank(entries).save(tmp_path)
    loaded = LoadedRun(tmp_path, model, IdentityBank.load(tmp_path))
    settings = GenerateConfig(num_frames=3, height_px=32, width_px=48, steps=2)
    scene = scene_of(loaded, "Anna waves.", ["anna", "ben"])
    assert scene.pictures is not None and scene.pictures.crops.dtype == torch.uint8
    video = generate(model, scene, settings)
    swapped = replace(scene.pictures, crops=scene.pictures.crops.flip(0))
    assert (generate(model, replace(scene, pictures=swapped), settings) != video).any()
    plain = generate(model, scene, replace(settings, strength=0.0))
    assert (plain == generate(model, Scene("Anna waves."), settings)).all()

    with pytest.raises(InputError, match="reads a picture of each character"):
        generate(model, replace(scene, pictures=None), settings)
    bare = IdentityBank([entries[0], replace(entries[1], picture=None, landmarks=None)])
    with pytest.raises(InputError, match=r"no picture of ben.*low_frequency"):
        scene_of(replace(loaded, bank=bare), "Anna waves.", ["anna", "ben"])
