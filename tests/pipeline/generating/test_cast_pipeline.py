"""The pipeline object against castbank's own drawing, diffusers' pipelines, and what other scripts do with one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data_prep.records import InputError
from pipeline import adapters, generate
from pipeline import model as models
from pipeline.config import (
    AdapterConfig,
    CogVideoXConfig,
    FamilyConfig,
    GenerateConfig,
    IdentityConfig,
    ModelConfig,
)
from pipeline.generate import Scene, load_run
from pipeline.generating.cast_pipeline import CastPipeline
from pipeline.identity.bank import BankEntry, IdentityBank
from pipeline.identity.tokens import fingerprint, tokens_of
from tests import small_cogvideox
from tests.small_wan import config_of, make_wan
from tests.tiny_run import make_run

SIZE = {"num_frames": 3, "height": 32, "width": 48, "num_inference_steps": 3}
CONFIG = GenerateConfig(num_frames=3, height_px=32, width_px=48, steps=3, seed=5)
IDENTITY = IdentityConfig(
    embedding_dim=16, tokens_per_character=2, width=16, encoder_layers=1, num_heads=2, max_cast=3
)
COG = partial(CogVideoXConfig, text_tokens=small_cogvideox.TEXT_TOKENS, frozen_dtype="fp32")
PROMPT = "Anna walks to Ben"
README = Path(__file__).resolve().parents[3] / "README.md"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("run"), 3, {"anna": 0, "ben": 1, "carla": 2})
    (folder / "export" / "seen.yaml").write_text("num_frames: 3\nheight_px: 32\nwidth_px: 48\nfps: 6.0\n")
    return folder


@pytest.fixture
def pipe(run_folder: Path) -> CastPipeline:
    return quiet(CastPipeline.from_pretrained(run_folder))


def quiet(pipe: CastPipeline) -> CastPipeline:
    pipe.set_progress_bar_config(disable=True)
    for attention in pipe.identity.attentions:
        torch.nn.init.normal_(attention.to_out.weight, std=0.3, generator=torch.Generator().manual_seed(1))
    return pipe


def published(folder: Path, family: Any) -> Path:
    """The export of a model over a published one, with a bank."""
    model = models.create(ModelConfig(family=family, identity=IDENTITY), [], seed=1).eval()
    adapters.apply(model.transformer, model.identity, AdapterConfig(kind="none"), 0)
    references = torch.nn.functional.normalize(torch.randn(2, 16), dim=-1)
    tokens, made_by = tokens_of(model.identity.encoder, references), fingerprint(model.identity.encoder)
    models.save(model, folder)
    IdentityBank([BankEntry("anna", tokens, references, network=made_by)]).save(folder / "bank")
    return folder


def test_it_draws_what_castbank_draws(pipe: CastPipeline, run_folder: Path) -> None:
    layout = np.zeros((3, 32, 48), np.uint8)
    layout[:, :, :24], layout[:, :, 24:] = 1, 2
    image = np.full((32, 48, 3), 90, np.uint8)
    run = load_run(run_folder)
    scene = replace(generate.scene_of(run, PROMPT, ["anna", "ben"]), layout=layout, anchor=image)
    expected = generate.generate(pipe.model, scene, replace(CONFIG, guidance=2.0, strength=0.8))
    asked = {"seed": 5, "guidance_scale": 2.0, "identity_strength": 0.8, "num_inference_steps": 3}
    asked |= {"layout": layout, "image": Image.fromarray(image)}
    video = pipe(PROMPT, ["anna", "ben"], output_type="uint8", **asked).frames
    assert np.array_equal(video[0], expected)
    (shares,) = pipe(PROMPT, ["anna", "ben"], return_dict=False, **asked)
    assert shares.shape == (1, 3, 32, 48, 3) and np.abs(shares * 255 - expected).max() <= 0.51
    pictures = pipe(PROMPT, ["anna", "ben"], output_type="pil", **asked).frames[0]
    assert np.array_equal(np.stack([np.asarray(picture) for picture in pictures]), expected)


@pytest.mark.parametrize("kind", ["t2v", "t2v-a14b"])
def test_a_published_model_with_the_bank_of_a_run(kind: Any, tmp_path: Path) -> None:
    """Before training identity is nobody: the video is the one that diffusers' pipeline makes of the same noise,
    also by another scheduler and offloaded."""
    from diffusers import DiffusionPipeline, UniPCMultistepScheduler

    base = make_wan(tmp_path / "base", kind)
    export = published(tmp_path / "export", config_of(base))
    pipe, theirs = CastPipeline.from_pretrained(base, bank=export), DiffusionPipeline.from_pretrained(base)
    assert ("transformer_2" in pipe.components) == (kind == "t2v-a14b")
    told = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    theirs.scheduler = UniPCMultistepScheduler(**told)
    pipe.scheduler = UniPCMultistepScheduler(**told)
    for each in (pipe, theirs):
        each.set_progress_bar_config(disable=True)
    latents = torch.randn(1, 4, 3, 4, 8, generator=torch.Generator().manual_seed(2))
    size = {"num_frames": 9, "height": 32, "width": 64, "num_inference_steps": 4, "output_type": "latent"}
    drawn = pipe(PROMPT, ["anna"], latents=latents, guidance_scale=1.0, **size).frames
    other = theirs(PROMPT, latents=latents, guidance_scale=1.0, max_sequence_length=24, **size).frames
    assert (drawn - other).abs().max() <= 1e-5 and drawn.std() > 0.1

    pipe.enable_model_cpu_offload(device="cpu")  # the hooks, and who stays without one
    hooked = {name for name, part in pipe.components.items() if hasattr(part, "_hf_hook")}
    assert hooked == set(pipe.components) - {"identity", "scheduler"}
    again = pipe(PROMPT, ["anna"], latents=latents, guidance_scale=1.0, **size).frames
    assert torch.equal(again, drawn)
    assert pipe(PROMPT, ["anna"], **size | {"output_type": "pt"}).frames.shape == (1, 9, 3, 32, 64)


def test_cogvideox_too(tmp_path: Path) -> None:
    base = small_cogvideox.make_model(tmp_path / "base", "5b")
    export = published(tmp_path / "export", FamilyConfig(name="cogvideox", cogvideox=COG(str(base))))
    pipe = quiet(CastPipeline.from_pretrained(str(base), bank=export))
    config = GenerateConfig(num_frames=9, height_px=32, width_px=48, steps=2, seed=5)
    size = {"num_frames": 9, "height": 32, "width": 48, "num_inference_steps": 2, "seed": 5}
    expected = generate.generate(pipe.model, Scene(PROMPT, pipe.bank.cast(["anna"])), config)
    assert np.array_equal(pipe(PROMPT, ["anna"], output_type="uint8", **size).frames[0], expected)


def test_a_lora_is_put_on_and_a_saved_pipeline_is_read_again(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 3, {"anna": 0}, AdapterConfig(kind="lora", rank=4, alpha=4))
    whole = CastPipeline.from_pretrained(run)
    assert adapters.has_lora(whole.transformer)
    (run / "export" / "lora").rename(tmp_path / "lora")
    without, given = (CastPipeline.from_pretrained(run, lora=lora) for lora in (None, tmp_path / "lora"))
    given.save_pretrained(tmp_path / "saved")
    pipes = [
        quiet(each) for each in (whole, without, given, CastPipeline.from_pretrained(tmp_path / "saved"))
    ]
    first, bare, again, read = (each(PROMPT, ["anna"], **SIZE).frames for each in pipes)
    assert np.array_equal(first, again) and np.array_equal(first, read) and not np.array_equal(first, bare)


def test_a_callback_sees_changes_and_stops(pipe: CastPipeline) -> None:
    seen: list[float] = []

    def told(pipe: Any, step: int, timestep: Any, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        seen.append(float(timestep))
        pipe._interrupt = step == 1
        return {"latents": values["latents"] * 0}

    latents = pipe(PROMPT, ["anna"], callback_on_step_end=told, output_type="latent", **SIZE).frames
    assert len(seen) == 2 and seen == sorted(seen, reverse=True) and not latents.any()
    assert len(pipe(PROMPT, ["anna"], callback_on_step_end=lambda *_: {}, **SIZE).frames) == 1


def test_a_generator_draws_the_noise(pipe: CastPipeline) -> None:
    noise = torch.randn(1, 128, 3, 2, 3, generator=torch.Generator().manual_seed(4))
    by_hand = pipe(PROMPT, ["anna"], latents=noise, **SIZE).frames
    drawn = pipe(PROMPT, ["anna"], generator=torch.Generator().manual_seed(4), **SIZE).frames
    assert np.array_equal(by_hand, drawn)


def test_half_precision_is_close(pipe: CastPipeline) -> None:
    whole = pipe(PROMPT, ["anna"], **SIZE).frames
    pipe.to(torch.bfloat16)
    assert pipe.transformer.dtype == torch.bfloat16 == pipe.identity.dtype
    assert 0 < np.abs(pipe(PROMPT, ["anna"], **SIZE).frames - whole).mean() < 0.02


def test_permuting_cast_and_layout_together_moves_nobody(pipe: CastPipeline) -> None:
    """With slots that are all alike, who is named first is a matter of the layout alone."""
    pipe.identity.slots.embedding.data[:] = pipe.identity.slots.embedding.data[:1].clone()
    layout = np.zeros((32, 48), np.uint8)
    layout[:, :16], layout[:, 16:32], layout[:, 32:] = 1, 2, 3

    def drawn(order: Callable[[np.ndarray], np.ndarray], *cast: str) -> np.ndarray:
        frames: np.ndarray = pipe(
            PROMPT, cast, layout=order(layout), output_type="latent", **SIZE
        ).frames.numpy()
        return frames

    first = drawn(lambda layout: layout, "anna", "ben", "carla")
    together = drawn(lambda layout: np.array([0, 2, 3, 1], np.uint8)[layout], "carla", "anna", "ben")
    alone = drawn(lambda layout: layout, "carla", "anna", "ben")
    assert np.abs(first - together).max() <= 1e-5
    assert np.abs(first - alone).max() > 1e-3


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"cast": ["dora"]}, "it holds anna, ben, carla"),
        ({"cast": ["anna"], "height": 40}, "height_px: 40"),
        ({"cast": ["anna"], "identity_strength": -0.5}, r"strength: -0\.5 .* 0\.7 to 0\.85"),
        ({"cast": ["anna"], "output_type": "mp4"}, "output_type: 'mp4' came; use one of np"),
        ({"cast": ["anna"], "latents": torch.zeros(1, 2, 3)}, r"latents: \(1, 2, 3\) came"),
        ({"cast": ["anna"], "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}, "there is latents"),
        ({"cast": ["anna"], "image": np.zeros((32, 48), np.uint8)}, r"uint8\(32, 48\) came"),
    ],
)
def test_wrong_settings_are_named(pipe: CastPipeline, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pipe(PROMPT, **SIZE | asked)


def test_what_does_not_belong_together_is_refused(
    pipe: CastPipeline, run_folder: Path, tmp_path: Path
) -> None:
    from diffusers import DDIMScheduler

    with pytest.raises(TypeError, match="no argument negative; there are num_frames"):
        pipe(PROMPT, negative="blurred")
    pipe.scheduler = DDIMScheduler()
    with pytest.raises(InputError, match="scheduler: a DDIMScheduler with prediction_type='epsilon'"):
        pipe(PROMPT, ["anna"], **SIZE)
    with pytest.raises(InputError, match="knows nobody: give bank"):
        CastPipeline.from_pretrained(tmp_path)
    bank_alone = tmp_path / "bank"
    pipe.bank.save(bank_alone)
    with pytest.raises(InputError, match="not the network that reads them"):
        CastPipeline.from_pretrained(tmp_path, bank=bank_alone)
    with pytest.raises(InputError, match=r"give .* itself as base"):
        CastPipeline.from_pretrained(tmp_path, bank=run_folder)
    with pytest.raises(InputError, match="lora: no adapter_config"):
        CastPipeline.from_pretrained(run_folder, lora=tmp_path)
    other = make_run(tmp_path / "other", 4, {"dora": 1})
    with pytest.raises(InputError, match="made by another network"):
        CastPipeline.from_pretrained(run_folder, bank=other)


def test_the_readmes_ten_lines_run(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = README.read_text(encoding="utf-8").split("### In your own script")[1]
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "first").symlink_to(run_folder)
    monkeypatch.chdir(tmp_path)
    assert len(found[1].splitlines()) <= 12
    exec(compile(found[1], "README.md", "exec"), {})
    assert (tmp_path / "scene.mp4").stat().st_size > 500
