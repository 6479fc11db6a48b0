"""CogVideoX against diffusers' own pipelines: text, codec, noise, sampling, on tiny models of every kind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from data_prep.records import InputError
from pipeline.config import CogVideoXConfig, FamilyConfig, GenerateConfig, IdentityConfig, ModelConfig
from pipeline.families.cogvideox import CogVideoXFamily
from pipeline.families.contract import Given
from pipeline.generate import Scene, sample
from pipeline.model import Model
from pipeline.objective.noise import stream
from tests.small_cogvideox import (
    FRAMES,
    HEIGHT,
    KINDS,
    SENTENCES,
    TEXT_TOKENS,
    WIDTH,
    make_model,
    make_tokenizer,
)

FolderOf = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> FolderOf:
    """The folder of a kind, made when it is first asked for."""
    root = tmp_path_factory.mktemp("cogvideox")

    def find(name: str) -> Path:
        return root / name if (root / name).is_dir() else make_model(root / name, name)

    return find


def knobs(folder: Path, **more: Any) -> FamilyConfig:
    asked = {"text_tokens": TEXT_TOKENS, "frozen_dtype": "fp32", **more}
    return FamilyConfig(name="cogvideox", cogvideox=CogVideoXConfig(pretrained=str(folder), **asked))


def family_of(folder: Path) -> CogVideoXFamily:
    return CogVideoXFamily.create(knobs(folder), [], seed=0)


def pipeline_of(folder: Path, name: str) -> Any:
    kind = diffusers.CogVideoXImageToVideoPipeline if KINDS[name].image else diffusers.CogVideoXPipeline
    pipeline = kind.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def video(num_frames: int = FRAMES) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(1, 3, num_frames, HEIGHT, WIDTH, generator=generator) * 2 - 1


def test_text_is_embedded_as_the_pipeline_does(folder_of: FolderOf) -> None:
    family, pipeline = family_of(folder_of("5b")), pipeline_of(folder_of("5b"), "5b")
    captions = [SENTENCES[0], "", " ".join(SENTENCES)]  # the last is cut
    with torch.no_grad():
        expected = pipeline._get_t5_prompt_embeds(captions, max_sequence_length=TEXT_TOKENS)
    assert torch.equal(family.embed_text(captions), expected)


def test_the_vocabulary_of_a_published_folder_is_read(folder_of: FolderOf, tmp_path: Path) -> None:
    """Published tokenizers hold a sentencepiece model alone; the library itself is the reference."""
    import sentencepiece

    whole = shutil.copytree(folder_of("5b"), tmp_path / "whole")
    shutil.rmtree(whole / "tokenizer")
    make_tokenizer(whole / "tokenizer")
    words = sentencepiece.SentencePieceProcessor(str(whole / "tokenizer" / "spiece.model"))
    ids = family_of(whole)._tokenizer(SENTENCES[0]).input_ids
    assert ids == [*words.encode(SENTENCES[0]), words.eos_id()]


@pytest.mark.parametrize("num_frames", [1, 5, FRAMES, 17])
def test_videos_are_encoded_and_decoded_as_the_pipeline_does(num_frames: int, folder_of: FolderOf) -> None:
    family, pipeline = family_of(folder_of("5b")), pipeline_of(folder_of("5b"), "5b")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):  # the codec stays in full precision
        latents = family.encode(video(num_frames)).latents
        decoded = family.decode(latents)
    with torch.no_grad():
        expected = (
            pipeline.vae.encode(video(num_frames)).latent_dist.mode() * pipeline.vae.config.scaling_factor
        )
        frames = pipeline.decode_latents(latents.transpose(1, 2)).clamp(-1, 1)
    assert latents.shape == (1, 4, *family.grid.size(num_frames, HEIGHT, WIDTH))
    assert torch.equal(latents, expected)
    assert torch.equal(decoded, frames)


def test_gradients_pass_the_decoder_and_frozen_parts_come_when_they_are_used(folder_of: FolderOf) -> None:
    family = family_of(folder_of("5b"))
    latents = torch.zeros(1, 4, 3, 4, 6, requires_grad=True)
    text = torch.zeros(1, TEXT_TOKENS, 16)
    family.velocity(latents, torch.full((1, 3), 0.5), Given(text)).sum().backward()
    assert not family.codec.loaded and not family.text_encoder.loaded
    latents.grad = None
    family.decode(latents).square().sum().backward()
    assert latents.grad is not None and latents.grad.abs().sum() > 0
    assert family.codec.loaded and not family.text_encoder.loaded


@pytest.mark.parametrize("name", ["2b", "5b"])
def test_the_noise_is_that_of_its_scheduler_and_the_loss_the_authors(name: str, folder_of: FolderOf) -> None:
    from diffusers import CogVideoXDPMScheduler, DDPMScheduler

    process = family_of(folder_of(name)).process
    scheduler = CogVideoXDPMScheduler.from_pretrained(
        folder_of(name) / "scheduler"
    )  # what the authors train with
    assert scheduler.alphas_cumprod[-1] == 0
    reference = DDPMScheduler(num_train_timesteps=1000)
    reference.alphas_cumprod = scheduler.alphas_cumprod
    clean, eps, answer = torch.randn(3, 2, 4, 3, 4, 6, generator=torch.Generator().manual_seed(1)).unbind()
    for step in (0, 1, 250, 998):
        timestep = torch.tensor([step, 999 - step])
        level = process.level_of(timestep)[:, None].expand(2, 3)
        noisy, target = process.noisy(clean, eps, level)
        torch.testing.assert_close(noisy, scheduler.add_noise(clean, eps, timestep), atol=1e-5, rtol=0)
        torch.testing.assert_close(target, reference.get_velocity(clean, eps, timestep), atol=1e-5, rtol=0)
        guess = scheduler.get_velocity(answer, noisy, timestep)  # of x, as their trainer calls it
        weight = (1 / (1 - scheduler.alphas_cumprod[timestep])).view(2, 1, 1, 1, 1)
        theirs = (weight * (guess - clean) ** 2).flatten(1).mean(1)
        ours = (answer - target).square().flatten(1).mean(1)
        torch.testing.assert_close(
            ours.double(), theirs.double(), rtol=1e-2 if step in (0, 999) else 1e-3, atol=0
        )


@pytest.mark.parametrize("guidance", [1.0, 6.0])
@pytest.mark.parametrize("name", KINDS)
def test_it_samples_as_the_pipeline_does(
    name: str, guidance: float, folder_of: FolderOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3 latent frames: in 1.5, whose tokens hold two, the pipeline puts one before them and drops it at the end. A
    first frame is encoded by both, here by the mean."""
    module = diffusers.pipelines.cogvideo.pipeline_cogvideox_image2video
    monkeypatch.setattr(module, "retrieve_latents", partial(module.retrieve_latents, sample_mode="argmax"))
    family, pipeline = family_of(folder_of(name)), pipeline_of(folder_of(name), name)
    model = Model(ModelConfig(identity=IdentityConfig(width=16)), family, seed=0)
    picture = (
        np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) if KINDS[name].image else None
    )
    config = GenerateConfig(FRAMES, HEIGHT, WIDTH, steps=5, guidance=guidance, seed=3)
    latents = sample(model, Scene(SENTENCES[0], anchor=picture), config)
    missing = family.grid.missing(3)
    noise = torch.randn(1, 4, 3 + missing, 4, 6, generator=stream(3, 0, "generate"))
    shape = {"num_frames": FRAMES, "height": HEIGHT, "width": WIDTH, "max_sequence_length": TEXT_TOKENS}
    asked = {**shape, "prompt": SENTENCES[0], "num_inference_steps": 5, "guidance_scale": guidance}
    start = {} if picture is None else {"image": Image.fromarray(picture)}
    answer = pipeline(**asked, **start, latents=noise.transpose(1, 2), output_type="latent").frames
    torch.testing.assert_close(latents, answer.transpose(1, 2)[:, :, missing:], atol=1e-5, rtol=0)


def without(part: str) -> Callable[[Path], None]:
    return lambda folder: shutil.rmtree(folder / part)


def with_value(file: str, key: str, value: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))

    return change


def without_words(folder: Path) -> None:
    for name in ("tokenizer.json", "spiece.model"):
        (folder / "tokenizer" / name).unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            with_value("model_index.json", "_class_name", "WanPipeline"),
            r"is a WanPipeline.*CogVideoXPipeline",
        ),
        (
            with_value("model_index.json", "vae", ["diffusers", "AutoencoderKLWan"]),
            "vae is a AutoencoderKLWan",
        ),
        (without("vae"), r"pretrained .*no vae in"),
        (without_words, r"no spiece\.model or tokenizer\.json"),
        (
            with_value("scheduler/scheduler_config.json", "prediction_type", "epsilon"),
            "prediction_type='epsilon'",
        ),
        (with_value("transformer/config.json", "max_text_seq_length", 226), "text_tokens=12.*set it to 226"),
    ],
)
def test_a_folder_of_something_else_is_named(
    damage: Callable[[Path], None], message: str, folder_of: FolderOf, tmp_path: Path
) -> None:
    folder = shutil.copytree(folder_of("5b"), tmp_path / "model")
    damage(folder)
    with pytest.raises(InputError, match=message):
        family_of(folder).embed_text(["anna"])


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("5b", (8, 32, 48), r"num_frames: 8 .*1 \+ a multiple of 4"),
        ("5b", (9, 24, 48), "height_px: 24 .*multiple of 16"),
        ("5b-i2v", (9, 32, 64), "9, 32, 64 came.*use 9, 32, 48"),
    ],
)
def test_a_size_that_does_not_fit_is_refused_before_encoding(
    name: str, size: tuple[int, int, int], message: str, folder_of: FolderOf
) -> None:
    with pytest.raises(InputError, match=message):
        family_of(folder_of(name)).encode(torch.zeros(1, 3, *size))


def test_a_transformer_that_reads_a_picture_wants_one(folder_of: FolderOf) -> None:
    family = family_of(folder_of("1.5-i2v"))
    with pytest.raises(InputError, match="makes videos of a picture"):
        family.velocity(torch.zeros(1, 4, 4, 4, 6), torch.ones(1, 4), Given(torch.zeros(1, TEXT_TOKENS, 16)))
