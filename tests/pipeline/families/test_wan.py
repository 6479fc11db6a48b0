"""The wan family on tiny random models in the published layouts, against diffusers' own pipelines."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from data_prep.records import InputError
from pipeline import adapters
from pipeline import model as models
from pipeline.config import AdapterConfig, GenerateConfig, IdentityConfig, ModelConfig
from pipeline.families.contract import Given
from pipeline.families.wan import WanFamily
from pipeline.generate import Scene, sample
from pipeline.model import Model
from pipeline.objective.noise import stream
from tests.small_wan import BOUNDARY, Folder, Published, config_of

SIZE = GenerateConfig(num_frames=9, height_px=32, width_px=64, steps=5, seed=3)
PROMPT = "Anna  walks to Ben &amp; Carla in the garden"
IDENTITY = IdentityConfig(tokens_per_character=2, width=16, encoder_layers=1, num_heads=2, max_cast=3)


def new_model(folder: Path, trained: bool = False, **changes: Any) -> Model:
    model = models.create(ModelConfig(family=config_of(folder, **changes), identity=IDENTITY), [], seed=1)
    if trained:
        for attention in model.identity.attentions:
            torch.nn.init.normal_(attention.to_out.weight, std=0.2)  # type: ignore[union-attr, arg-type]
    return model.eval()


def pipeline_of(folder: Path, model: Model) -> Any:
    """diffusers' own, whole, with our scheduler."""
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = model.family.process.scheduler()
    return pipeline


def noise_of(model: Model) -> torch.Tensor:
    shape = (1, model.family.latent_channels, *model.family.grid.size(9, 32, 64))
    return torch.randn(shape, generator=stream(SIZE.seed, 0, "generate"))


def picture() -> np.ndarray:
    generator = np.random.default_rng(8)
    return generator.integers(0, 256, (32, 64, 3), dtype=np.uint8)


def by_diffusers(folder: Path, model: Model, anchor: np.ndarray | None, **options: Any) -> torch.Tensor:
    """The latents that the published pipeline makes of the same noise and prompt."""
    from diffusers import WanImageToVideoPipeline
    from PIL import Image

    pipeline = pipeline_of(folder, model)
    if anchor is not None:
        parts = {"image_encoder": None, "image_processor": None} | pipeline.components
        kept = ("boundary_ratio", "expand_timesteps")
        pipeline = WanImageToVideoPipeline(**parts, **{name: pipeline.config[name] for name in kept})
        pipeline.set_progress_bar_config(disable=True)
        options["image"] = Image.fromarray(anchor)
    made: torch.Tensor = pipeline(
        prompt=PROMPT,
        negative_prompt="",
        height=32,
        width=64,
        num_frames=9,
        num_inference_steps=SIZE.steps,
        latents=noise_of(model),
        max_sequence_length=24,
        output_type="latent",
        **{"guidance_scale": 1.0} | options,
    ).frames
    return made


@pytest.mark.parametrize(
    ("kind", "anchored", "guidance"),
    [
        ("t2v", False, 3.0),
        ("i2v", True, 3.0),
        ("ti2v", False, 1.0),
        ("ti2v", True, 3.0),
        ("t2v-a14b", False, 1.0),
        ("i2v-a14b", True, 1.0),
    ],
)
def test_generation_gives_the_latents_of_the_published_pipeline(
    kind: Published, anchored: bool, guidance: float, wan: Folder
) -> None:
    model = new_model(wan(kind))
    anchor = picture() if anchored else None
    ours = sample(model, Scene(PROMPT, anchor=anchor), replace(SIZE, guidance=guidance))
    theirs = by_diffusers(wan(kind), model, anchor, guidance_scale=guidance)
    assert theirs.std() > 0.1
    assert (ours - theirs).abs().max() <= 1e-5


def test_the_video_is_the_pipelines_own(wan: Folder) -> None:
    model = new_model(wan("t2v"))
    pipeline = pipeline_of(wan("t2v"), model)
    latents = torch.randn(1, 4, 3, 4, 8, generator=torch.Generator().manual_seed(2))
    expected = pipeline.vae.decode(
        latents / (1.0 / torch.tensor(pipeline.vae.config.latents_std).view(1, -1, 1, 1, 1))
        + torch.tensor(pipeline.vae.config.latents_mean).view(1, -1, 1, 1, 1)
    ).sample
    latents.requires_grad_()
    video = model.family.decode(latents)
    assert torch.equal(video, expected)
    (gradient,) = torch.autograd.grad(video.square().sum(), latents)
    assert gradient.abs().amax((0, 1, 3, 4)).min() > 0  # through every latent frame


@pytest.mark.parametrize("kind", ["i2v", "ti2v", "i2v-a14b"])
def test_encoding_is_the_pipelines_own(kind: Published, wan: Folder) -> None:
    """What WanImageToVideoPipeline makes of a picture, of two different ones at once."""
    from diffusers import WanImageToVideoPipeline

    family = new_model(wan(kind)).family
    video = torch.rand(2, 3, 9, 32, 64, generator=torch.Generator().manual_seed(4)) * 2 - 1
    video[:, :, 0] = ((video[:, :, 0] + 1) * 127.5).round() / 127.5 - 1
    encoded = family.encode(video)
    pipeline = WanImageToVideoPipeline.from_pretrained(wan(kind), **{} if kind == "i2v" else NO_CLIP)
    for b in range(2):
        first = video[b : b + 1, :, 0]
        _, condition, *_ = pipeline.prepare_latents(
            first, 1, 4, 32, 64, 9, torch.float32, torch.device("cpu"), None, noise_of(new_model(wan(kind)))
        )
        if kind == "ti2v":
            torch.testing.assert_close(encoded.latents[b : b + 1, :, :1], condition, atol=1e-6, rtol=0)
            continue
        assert encoded.channels is not None
        torch.testing.assert_close(encoded.channels[b : b + 1], condition, atol=1e-6, rtol=0)
        if kind == "i2v":
            assert encoded.image is not None
            image = ((first[0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
            expected = pipeline.encode_image(image, torch.device("cpu"))
            torch.testing.assert_close(encoded.image[b : b + 1], expected, atol=1e-6, rtol=0)


NO_CLIP = {"image_encoder": None, "image_processor": None}


def test_text_is_the_pipelines_own_and_zero_after_it(wan: Folder) -> None:
    family = new_model(wan("t2v")).family
    pipeline = pipeline_of(wan("t2v"), new_model(wan("t2v")))
    prompts = [PROMPT, "", "a man " * 40]
    expected = pipeline._get_t5_prompt_embeds(prompts, 1, 24, torch.device("cpu"), torch.float32)
    text = family.embed_text(prompts)
    torch.testing.assert_close(text, expected, atol=1e-6, rtol=0)
    assert text[1, 1:].abs().max() == 0 and text[1, 0].abs().max() > 0  # the end sign alone
    assert text[2].abs().amin(1).min() > 0  # cut off at text_tokens


def test_tokens_of_masks_are_the_transformers_tokens(wan: Folder) -> None:
    """A mask that is one token: the transformer's patch embedding there, and only there, feels a change."""
    family = new_model(wan("ti2v")).family
    label_map = torch.zeros(1, 9, 32, 64, dtype=torch.uint8)
    label_map[:, 5:9, :, 32:] = 1  # latent frame 2, the second of two tokens
    tokens = family.grid.tokens(family.grid.coverage(label_map, 1))[0, 0]
    latents = torch.zeros(1, 4, *family.grid.size(9, 32, 64))
    changed = latents.clone()
    changed[:, :, 2, :, 2:] = 1
    embed: Any = family.transformer.patch_embedding
    felt = (embed(changed) - embed(latents)).abs().sum(1).flatten() > 0
    assert tokens.tolist() == felt.float().tolist() == [0, 0, 0, 0, 0, 1]


def test_each_expert_is_used_on_its_side_and_levels_are_drawn_there(wan: Folder) -> None:
    from diffusers import WanTransformer3DModel

    folder, quantile = wan("t2v-a14b"), torch.linspace(0.001, 0.999, 200)
    latents = torch.randn(1, 4, 3, 4, 8)
    text = torch.randn(1, 24, 16)
    for expert in ("high", "low"):
        family = WanFamily.create(config_of(folder, expert=expert), [], 0)
        assert not family._other.loaded
        for level, part in ((BOUNDARY, "transformer"), (BOUNDARY - 0.01, "transformer_2")):
            published = WanTransformer3DModel.from_pretrained(folder / part)
            with torch.no_grad():
                answer = family.velocity(latents, torch.full((1, 3), level), Given(text))
                expected = published(latents, torch.tensor([level * 1000]), text).sample
            torch.testing.assert_close(answer, expected, atol=1e-5, rtol=0)
        levels = family.process.levels(quantile, "logit_normal")
        assert bool((levels >= BOUNDARY - 1e-6).all() if expert == "high" else (levels <= BOUNDARY).all())


def test_training_never_loads_the_other_expert_nor_a_cached_run_the_frozen_parts(wan: Folder) -> None:
    for expert in ("high", "low"):
        family = WanFamily.create(config_of(wan("t2v-a14b"), expert=expert), [], 0)
        levels = family.process.levels(torch.tensor([1e-7, 0.3, 1 - 1e-7]), "logit_normal")
        level = levels[:, None].repeat(1, 3)
        family.velocity(torch.randn(3, 4, 3, 4, 8), level, Given(torch.randn(3, 24, 16)))
        assert not family._other.loaded
        frozen = family.parts
        assert not (frozen.codec.loaded or frozen.text_encoder.loaded or frozen.image_encoder.loaded)


def cast_of(model: Model) -> Any:
    mask = torch.ones(2, 2, dtype=torch.bool)
    generator = torch.Generator().manual_seed(6)
    tokens = torch.randn(2, 2, 2, 16, generator=generator)
    return model.identity.context(tokens, mask, torch.ones(2))


def question(model: Model) -> tuple[torch.Tensor, torch.Tensor, Given]:
    """Latents, levels with an anchored first frame in one sample where that is possible, and text."""
    generator = torch.Generator().manual_seed(7)
    family = model.family
    latents = torch.randn(2, 4, *family.grid.size(9, 32, 64), generator=generator)
    level = torch.tensor([[0.9, 0.9, 0.9], [0.0 if family.outline.anchors else 0.95, 0.95, 0.95]])
    text = torch.randn(2, 24, 16, generator=generator)
    if not family.outline.pictured:
        return latents, level, Given(text)
    channels = torch.randn(2, 8, *latents.shape[2:], generator=generator)
    return latents, level, Given(text, channels, torch.randn(2, 5, 12, generator=generator))


@pytest.mark.parametrize("kind", ["t2v", "i2v", "ti2v"])
def test_before_training_the_cast_changes_nothing(kind: Published, wan: Folder) -> None:
    model = new_model(wan(kind))
    bare = WanFamily.create(model.config.family, [], 0)
    latents, level, given = question(model)
    with torch.no_grad():
        answer = model.velocity(latents, level, given, cast_of(model))
        assert torch.equal(answer, bare.velocity(latents, level, given))


def gradients(model: Model) -> list[torch.Tensor]:
    model.zero_grad()
    latents, level, given = question(model)
    model.velocity(latents, level, given, cast_of(model)).square().mean().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("kind", ["i2v", "ti2v"])
def test_checkpointed_activations_change_no_gradient(kind: Published, wan: Folder) -> None:
    model = new_model(wan(kind), trained=True).train()
    plain = gradients(model)
    model.checkpoint_activations()
    again = gradients(model)
    assert len(plain) == len(again) > 60
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


@pytest.mark.slow  # the compiler alone takes longer than all else here
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_blocks_are_compiled_with_their_hooks_in_one_graph(backend: str, wan: Folder) -> None:
    """Every block, with its identity hook, in one graph: answer, routes and gradients."""
    model, compiled = (new_model(wan("t2v"), trained=True).train() for _ in range(2))
    compiled.load_state_dict(model.state_dict())
    blocks: Any = compiled.transformer.blocks
    for block in blocks:
        block.compile(backend=backend, fullgraph=True)
    latents, level, given = question(model)
    contexts = cast_of(model), cast_of(compiled)
    with torch.no_grad():
        expected = model.velocity(latents, level, given, contexts[0])
        answer = compiled.velocity(latents, level, given, contexts[1])
    torch.testing.assert_close(answer, expected, atol=1e-5, rtol=0)
    for layer in (0, 1):
        torch.testing.assert_close(contexts[1].routing[layer], contexts[0].routing[layer], atol=1e-5, rtol=0)
    for plain, again in zip(gradients(model), gradients(compiled), strict=True):
        torch.testing.assert_close(again, plain, atol=1e-5, rtol=1e-4)


def test_a_run_keeps_only_what_it_changed(wan: Folder, tmp_path: Path) -> None:
    model = new_model(wan("t2v"), trained=True)
    adapter = AdapterConfig(kind="lora", rank=2, alpha=2.0)
    adapters.apply(model.transformer, model.identity, adapter, seed=3)
    for name, parameter in model.transformer.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    latents, level, given = question(model)
    cast = cast_of(model)
    with torch.no_grad():
        expected = model.velocity(latents, level, given, cast)
        alone = model.velocity(latents, level, given, None)
    models.save(model, tmp_path / "lora")
    assert not (tmp_path / "lora" / "transformer").exists()
    with torch.no_grad():
        loaded = models.load(tmp_path / "lora")
        assert torch.equal(loaded.velocity(latents, level, given, cast), expected)
    assert_diffusers_reads_the_lora(wan("t2v"), tmp_path / "lora", (latents[:1], level[:1], given), alone[:1])

    adapters.fold_lora(model.transformer)
    model.base_changed = True
    models.save(model, tmp_path / "full")
    with torch.no_grad():
        folded = models.load(tmp_path / "full").velocity(latents, level, given, cast)
    torch.testing.assert_close(folded, expected, atol=1e-5, rtol=0)


def assert_diffusers_reads_the_lora(
    folder: Path, export: Path, asked: tuple[torch.Tensor, torch.Tensor, Given], expected: torch.Tensor
) -> None:
    """WanPipeline.load_lora_weights on the export's own weights gives our answer without a cast."""
    from diffusers import WanPipeline

    pipeline = WanPipeline.from_pretrained(folder)
    weights = load_file(export / "lora" / "adapter_model.safetensors")
    named = {name.replace("base_model.model.", "transformer."): value for name, value in weights.items()}
    pipeline.load_lora_weights(named)
    latents, level, given = asked
    with torch.no_grad():
        answer = pipeline.transformer(latents, level[:, 0] * 1000, given.text[:1]).sample
    torch.testing.assert_close(answer, expected, atol=1e-5, rtol=0)


def test_older_names_of_weights_are_read(wan: Folder, tmp_path: Path) -> None:
    """Published text encoders hold the table of words once; image encoders have names with vision_model before."""
    folder = shutil.copytree(wan("i2v"), tmp_path / "older")
    before = WanFamily.create(config_of(wan("i2v")), [], 0)
    path = folder / "text_encoder" / "model.safetensors"
    weights = load_file(path)
    table = weights.pop("encoder.embed_tokens.weight", weights.get("shared.weight"))
    assert table is not None
    save_file(weights | {"shared.weight": table}, path, metadata={"format": "pt"})
    path = folder / "image_encoder" / "model.safetensors"
    plain = {name.removeprefix("vision_model."): value for name, value in load_file(path).items()}
    save_file({f"vision_model.{k}": v for k, v in plain.items()}, path, metadata={"format": "pt"})
    after = WanFamily.create(config_of(folder), [], 0)
    assert torch.equal(before.embed_text([PROMPT]), after.embed_text([PROMPT]))
    video = torch.rand(1, 3, 9, 32, 64) * 2 - 1
    first, second = before.encode(video).image, after.encode(video).image
    assert first is not None and second is not None and torch.equal(first, second)


def test_sizes_and_first_frames_that_do_not_fit_are_named(wan: Folder) -> None:
    text, image = new_model(wan("t2v")), new_model(wan("i2v"))
    with pytest.raises(InputError, match="num_frames: 8"):
        text.family.encode(torch.zeros(1, 3, 8, 32, 64))
    with pytest.raises(InputError, match=r"width_px: 72 .* multiple of 16"):
        text.family.encode(torch.zeros(1, 3, 9, 32, 72))
    with pytest.raises(InputError, match=r"first frame: none came; .* 64x32; give --anchor"):
        sample(image, Scene(PROMPT), SIZE)
    with pytest.raises(InputError, match="first frame: one of 32x32"):
        sample(image, Scene(PROMPT, anchor=picture()[:, :32]), SIZE)
    latents, level, given = question(image)
    level[:, 0] = 0
    with pytest.raises(InputError, match=r"set model\.noise\.anchor to 0"):
        image.velocity(latents, level, given, None)
