"""Sampling follows the flow, repeats itself, obeys a layout, and refuses what it cannot make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep.records import InputError
from pipeline import generate
from pipeline import model as models
from pipeline.config import GenerateConfig
from pipeline.families.contract import Given
from pipeline.generate import Sampling, Scene
from pipeline.identity.bank import BankEntry, IdentityBank
from pipeline.model import Model
from pipeline.objective.noise import stream
from pipeline.objective.processes import Flow

NewModel = Callable[..., Model]
CONFIG = GenerateConfig(num_frames=3, height_px=32, width_px=48, steps=4, seed=2)


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randn(2, 3, 24, generator=torch.Generator().manual_seed(4))


def slow_euler(model: Model, scene: Scene, config: GenerateConfig) -> np.ndarray:
    """Explicit Euler from noise to clean, over shifted levels that are equally spaced before the shift."""
    assert scene.tokens is not None
    given = Given(model.family.embed_text([scene.prompt]))
    cast = model.identity.context(scene.tokens[None], torch.ones(1, 2, dtype=torch.bool), torch.ones(1))
    assert isinstance(model.family.process, Flow)
    shift = model.family.process.shift

    def shifted(level: float) -> float:
        return shift * level / (1 + (shift - 1) * level)

    first, last = shifted(1.0), shifted(1e-3)  # of 1,000 training levels
    spread = torch.linspace(first, last, config.steps).tolist()
    levels = [*(shifted(level) for level in spread), 0.0]
    shape = (1, model.family.latent_channels, *model.family.grid.size(3, 32, 48))
    x = torch.randn(shape, generator=stream(config.seed, 0, "generate"))
    with torch.no_grad():
        for now, after in pairwise(levels):
            x = x + (after - now) * model.velocity(x, torch.full((1, shape[2]), now), given, cast)
        video = model.family.decode(x)[0].permute(1, 2, 3, 0)
    return ((video + 1) * 127.5).round().byte().numpy()


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_it_follows_the_flow_by_euler_steps(shift: float, new_model: NewModel, tokens: torch.Tensor) -> None:
    model = new_model()
    model.family.process = Flow(shift)
    scene = Scene("Anna talks to Ben", tokens)
    video = generate.generate(model, scene, CONFIG)
    assert video.shape == (3, 32, 48, 3) and video.dtype == np.uint8
    difference = np.abs(video.astype(int) - slow_euler(model, scene, CONFIG))
    assert difference.max() <= 1


def test_same_seed_same_video_another_seed_another(new_model: NewModel, tokens: torch.Tensor) -> None:
    model, scene = new_model(), Scene("Anna", tokens)
    first, again = (generate.generate(model, scene, CONFIG) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, generate.generate(model, scene, replace(CONFIG, seed=3)))


def test_prompt_cast_layout_strength_and_guidance_all_matter(
    new_model: NewModel, tokens: torch.Tensor
) -> None:
    model, layout = new_model(), np.zeros((32, 48), np.uint8)
    layout[:, :24], layout[:, 24:] = 1, 2
    scene = Scene("Anna talks to Ben", tokens)
    videos = [
        generate.generate(model, shown, config)
        for shown, config in (
            (scene, CONFIG),
            (replace(scene, prompt="Ben waits"), CONFIG),
            (replace(scene, tokens=tokens.flip(0)), CONFIG),
            (replace(scene, layout=layout), CONFIG),
            (replace(scene, layout=layout[:, ::-1].copy()), CONFIG),
            (scene, replace(CONFIG, strength=0.7)),
            (scene, replace(CONFIG, guidance=3.0)),
            (replace(scene, tokens=None), CONFIG),
        )
    ]
    assert len({video.tobytes() for video in videos}) == len(videos)


def test_without_strength_the_cast_is_nobody(new_model: NewModel, tokens: torch.Tensor) -> None:
    model = new_model()
    silent = generate.generate(model, Scene("Anna", tokens), replace(CONFIG, strength=0.0))
    assert np.array_equal(silent, generate.generate(model, Scene("Anna"), CONFIG))


@pytest.mark.parametrize(
    ("layout", "message"),
    [(np.zeros((16, 48), np.uint8), r"\(16, 48\)"), (np.full((32, 48), 3, np.uint8), r"slots 0\.\.2")],
)
def test_a_wrong_layout_is_named(
    layout: np.ndarray, message: str, new_model: NewModel, tokens: torch.Tensor
) -> None:
    with pytest.raises(InputError, match=message):
        generate.generate(new_model(), Scene("Anna", tokens, layout), CONFIG)


def test_a_layout_over_time_that_never_changes_is_a_layout(new_model: NewModel, tokens: torch.Tensor) -> None:
    model, still = new_model(), np.zeros((32, 48), np.uint8)
    still[:, :24], still[:, 24:] = 1, 2
    moving = np.stack([still, still, still[:, ::-1]])
    videos = [generate.generate(model, Scene("Anna", tokens, shown), CONFIG) for shown in (still, moving)]
    same = generate.generate(model, Scene("Anna", tokens, np.stack([still] * 3)), CONFIG)
    assert np.array_equal(videos[0], same) and not np.array_equal(*videos)
    with pytest.raises(InputError, match=r"3 frames, height, width"):
        generate.generate(model, Scene("Anna", tokens, moving[:2]), CONFIG)


def test_sampling_is_told_of_each_step_and_may_be_changed_or_stopped(
    new_model: NewModel, tokens: torch.Tensor
) -> None:
    model, scene = new_model(), Scene("Anna", tokens)
    seen: list[torch.Tensor] = []

    def watched(step: int, timestep: torch.Tensor, latents: torch.Tensor) -> tuple[torch.Tensor, bool]:
        assert step == len(seen) and 0 < timestep <= 1000
        seen.append(latents)
        return latents, step < 1

    noise = generate.noise_of(model, CONFIG)
    stopped = generate.sample(model, scene, CONFIG, how=Sampling(noise=noise, step_end=watched))
    assert len(seen) == 2 and torch.equal(stopped, seen[1])
    with pytest.raises(InputError, match=r"latents: \(1, 24, 2"):
        generate.sample(model, scene, CONFIG, how=Sampling(noise=noise[:, :, :2]))


def test_progress_is_told(new_model: NewModel) -> None:
    told: list[tuple[str, int, int]] = []
    generate.generate(new_model(), Scene("Anna"), CONFIG, lambda *step: told.append(step))
    assert told == [("sampling", i, 4) for i in range(1, 5)]


def test_a_run_is_loaded_by_its_folder_or_its_export(
    new_model: NewModel, tokens: torch.Tensor, tmp_path: Path
) -> None:
    model = new_model()
    export = tmp_path / "run" / "export"
    models.save(model, export)
    with pytest.raises(InputError, match="no identity bank"):
        generate.load_run(tmp_path / "run")
    IdentityBank([BankEntry("anna", tokens[0], torch.zeros(1, 32))]).save(export / "bank")
    for folder in (tmp_path / "run", export):
        run = generate.load_run(folder)
        assert run.folder == export and list(run.bank.entries) == ["anna"]
        scene = Scene("Anna", run.bank.cast(["anna"]))
        expected = generate.generate(model, replace(scene, tokens=tokens[:1]), CONFIG)
        assert np.array_equal(generate.generate(run.model, scene, CONFIG), expected)


def test_a_first_frame_is_kept_and_changes_what_follows(new_model: NewModel, tokens: torch.Tensor) -> None:
    model, scene = new_model(), Scene("Anna", tokens)
    picture = np.full((32, 48, 3), (90, 140, 110), np.uint8)
    video = generate.generate(model, replace(scene, anchor=picture), CONFIG)
    assert np.abs(video[0].astype(int) - picture).max() <= 2  # the patch PCA has flat patches nearly whole
    assert not np.array_equal(video[1:], generate.generate(model, scene, CONFIG)[1:])
    with pytest.raises(InputError, match=r"first frame: one of 48x16 came; .* 48x32"):
        generate.generate(model, replace(scene, anchor=picture[:16]), CONFIG)


def test_contact_sheet_lays_frames_in_rows() -> None:
    frames = np.arange(7, dtype=np.uint8)[:, None, None, None] + np.ones((7, 2, 4, 3), np.uint8)
    sheet = generate.contact_sheet(frames, num_columns=5)
    assert sheet.shape == (4, 20, 3)
    assert sheet[0, ::4, 0].tolist() == [1, 2, 3, 4, 5] and sheet[2, ::4, 0].tolist() == [6, 7, 0, 0, 0]
    assert generate.contact_sheet(frames[:3]).shape == (2, 12, 3)
