"""From a prompt and a cast to a video: noise, a scheduler of diffusers, and the model with its identity context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_prep.records import U8, InputError, Progress
from pipeline import given
from pipeline import model as models
from pipeline.config import GenerateConfig
from pipeline.families.contract import Given, LatentGrid
from pipeline.generating.limits import check_strength
from pipeline.identity import canvas
from pipeline.identity.attention import CastContext
from pipeline.identity.bank import CastPictures, IdentityBank
from pipeline.identity.fitting import open_bank
from pipeline.model import Model
from pipeline.objective.noise import stream


@dataclass(frozen=True)
class LoadedRun:
    """A run that can generate; ``folder`` is its export."""

    folder: Path
    model: Model
    bank: IdentityBank


def load_run(folder: Path, bank: Path | None = None) -> LoadedRun:
    """A run's folder or its export, with its own bank or another.

    Raises InputError where there is no model or no bank, or where another network made the bank's tokens.
    """
    export = folder / "export" if (folder / "export").is_dir() else folder
    model = models.load(export)
    return LoadedRun(export, model.eval(), open_bank(model, export, bank))


@dataclass(frozen=True, eq=False)
class Scene:
    """What is to be seen. tokens: f32[N,K,C] of the cast, slot by slot, or None for nobody known; layout: u8[H,W]
    slot numbers of the picture's pixels, 0 nobody, or u8[T,H,W] of every frame's, or None, then the model decides
    who goes where; anchor: u8[H,W,3] RGB, the first frame, or None; pictures: of the cast, which a model with the
    low-frequency path reads; faces: u8[N,112,112,3] RGB aligned, one of each of the cast, which an anchor may be
    composed of; history: u8[H',H,W,3], the first frames, and ending: u8[H,W,3], the picture that the last latent
    frame stands still at, which a model with a noise level per latent frame is given clean; unlocked: names of
    the cast whose tokens later training may move, None where the cast is of no bank."""

    prompt: str
    tokens: torch.Tensor | None = None
    layout: U8 | None = None
    anchor: U8 | None = None
    pictures: CastPictures | None = None
    faces: U8 | None = None
    history: U8 | None = None
    ending: U8 | None = None
    unlocked: tuple[str, ...] | None = None


StepEnd = Callable[[int, torch.Tensor, torch.Tensor], tuple[torch.Tensor, bool]]
"""Told of a step's number, its time step and the latents after it; answers those to go on with, and whether to."""


@dataclass(frozen=True, eq=False)
class Sampling:
    """How noise becomes a video, where it is not done as usual. scheduler: of diffusers, instead of the family's
    own; noise: f32[1,C,t,h,w] to begin with, instead of the seed's, where t includes the frames that fill tokens
    (``LatentGrid.missing``); generator: draws it instead; device: where the model computes, where that is not where
    its weights lie now; step_end: see ``StepEnd``."""

    scheduler: Any = None
    noise: torch.Tensor | None = None
    generator: torch.Generator | None = None
    device: torch.device | None = None
    step_end: StepEnd = lambda step, timestep, latents: (latents, True)


USUAL = Sampling()


def scene_of(loaded: LoadedRun, prompt: str, names: Sequence[str]) -> Scene:
    """A scene with characters of the bank, and all that the model reads of them; nobody known without names.

    Raises InputError for a name that is unknown or comes twice, or one without a picture where that is needed.
    """
    if not names:
        return Scene(prompt)
    bank, pictured = loaded.bank, loaded.model.identity.low_frequency is not None
    return Scene(
        prompt,
        bank.cast(names),
        pictures=bank.pictures(names) if pictured else None,
        faces=bank.faces(names),
        unlocked=tuple(name for name in names if not bank.entry(name).locked),
    )


@torch.no_grad()
def generate(model: Model, scene: Scene, config: GenerateConfig, progress: Progress = lambda *_: None) -> U8:
    """The video, u8[T,H,W,3] RGB; the same for the same arguments on the same machine.

    Raises InputError for a size that the family cannot make, too large a cast, a layout of another size or with
    other slots, and a first frame of another size, or none where the model cannot do without.
    """
    return pixels(model.family.decode(sample(model, scene, config, progress)))


def pixels(video: torch.Tensor) -> U8:
    """f32[1,3,T,H,W] in [-1,1] to u8[T,H,W,3] RGB."""
    return np.asarray(((video[0].permute(1, 2, 3, 0) + 1) * 127.5).round().to(torch.uint8).cpu().numpy())


@torch.no_grad()
def sample(
    model: Model,
    scene: Scene,
    config: GenerateConfig,
    progress: Progress = lambda *_: None,
    how: Sampling = USUAL,
) -> torch.Tensor:
    """The video's latents, f32[1,C,t,h,w], by the scheduler of diffusers that the family's process names.

    Guidance (Ho & Salimans 2022, arXiv 2207.12598) is away from the model without caption and cast. A first frame
    is given as channels where the transformer reads those, else as clean latents at noise level 0 (as diffusers'
    WanImageToVideoPipeline does with expand_timesteps), as history and ending are. Raises InputError as
    ``generate``.
    """
    device = how.device or next(model.parameters()).device
    family = model.family
    missing = family.grid.missing(family.grid.size(config.num_frames, config.height_px, config.width_px)[0])
    start = given.start(model, scene, config, device)
    text = family.embed_text([scene.prompt, ""]).to(device)
    asked, unasked = (Given(row, start.channels, start.image) for row in (text[:1], text[1:]))
    context = _context(model, scene, config, device)
    scheduler = how.scheduler or family.process.scheduler()
    scheduler.set_timesteps(config.steps, device=device)
    latents = noise_of(model, config, how).to(device)
    for step, timestep in enumerate(scheduler.timesteps):
        level = family.process.level_of(timestep).repeat(1, latents.shape[2])
        level[:, start.places] = 0
        start.put(latents)
        velocity = model.velocity(latents, level, asked, context).float()
        if config.guidance != 1:
            away = model.velocity(latents, level, unasked, None).float()
            velocity = away + config.guidance * (velocity - away)
        latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        progress("sampling", step + 1, config.steps)
        latents, further = how.step_end(step, timestep, latents)
        if not further:
            break
    start.put(latents)
    return latents[:, :, missing:]


def noise_of(model: Model, config: GenerateConfig, how: Sampling = USUAL) -> torch.Tensor:
    """What sampling begins with, f32[1,C,t,h,w], t with the frames that fill the last token; raises InputError for
    a size that the family cannot make, and for given noise of another shape."""
    grid = model.family.grid
    t, h, w = grid.size(config.num_frames, config.height_px, config.width_px)
    shape = (1, model.family.latent_channels, t + grid.missing(t), h, w)
    if how.noise is not None:
        if how.noise.shape != shape:
            raise InputError(
                f"latents: {tuple(how.noise.shape)} came; this video begins with noise of {shape}, f32; give that, "
                "or a seed"
            )
        return how.noise.clone()
    drawing = how.generator or stream(config.seed, 0, "generate")
    return torch.randn(shape, generator=drawing, device=drawing.device)


def _context(model: Model, scene: Scene, config: GenerateConfig, device: torch.device) -> CastContext | None:
    """The scene's cast for the identity network; None where there is none."""
    if scene.tokens is None:
        return None
    num_characters = len(scene.tokens)
    check_strength(config.strength)
    layout = None
    if scene.layout is not None:
        layout = _routes(scene.layout, num_characters, config, model.family.grid).to(device)
    mask = torch.ones(1, num_characters, dtype=torch.bool, device=device)
    strength = torch.full((1,), config.strength, device=device)
    canvases = None
    if model.identity.low_frequency is not None:
        canvases = config.strength * _canvases(model, scene, config, mask)
    return model.identity.context(scene.tokens[None].to(device), mask, strength, layout, canvases)


def _canvases(model: Model, scene: Scene, config: GenerateConfig, mask: torch.Tensor) -> torch.Tensor:
    """Latents f32[1,C,2,h,w] of the cast's pictures and landmarks."""
    if scene.pictures is None:
        raise InputError(
            "cast: this model also reads a picture of each character; give them, as a bank has them"
        )
    crops, landmarks = (
        value[None].to(mask.device) for value in (scene.pictures.crops, scene.pictures.landmarks)
    )
    drawn = canvas.canvases(crops, landmarks, mask, (config.height_px, config.width_px))
    return model.encode_canvases(drawn)


def _routes(layout: U8, num_characters: int, config: GenerateConfig, grid: LatentGrid) -> torch.Tensor:
    """f32[1,L,N+1]: for each visual token the share of its pixels that each slot has, column 0 nobody. A layout of
    every frame is grouped as the family's frames are, see ``LatentGrid.coverage``."""
    wanted = (config.height_px, config.width_px)
    if (
        layout.shape not in (wanted, (config.num_frames, *wanted))
        or layout.dtype != np.uint8
        or layout.max() > num_characters
    ):
        raise InputError(
            f"layout: {layout.dtype}{layout.shape} with slots up to {layout.max()} came; it takes uint8 (height, "
            f"width) {wanted}, or ({config.num_frames} frames, height, width), and slots 0..{num_characters}, 0 "
            "for nobody; draw it at the video's size"
        )
    label_map = torch.from_numpy(layout).expand(1, config.num_frames, *wanted)
    shares = grid.tokens(grid.coverage(label_map, num_characters)).transpose(1, 2)  # [1,L,N]
    return torch.cat([1 - shares.sum(-1, keepdim=True), shares], -1)


def contact_sheet(frames: U8, num_columns: int = 5) -> U8:
    """Frames u8[T,H,W,3] side by side, row by row, black where the last row is not full: u8[rows·H,columns·W,3]."""
    num_frames, height, width, _ = frames.shape
    columns = min(num_columns, num_frames)
    rows = -(-num_frames // columns)
    sheet = np.zeros((rows * columns, height, width, 3), np.uint8)
    sheet[:num_frames] = frames
    grid = sheet.reshape(rows, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    return np.asarray(grid.reshape(rows * height, columns * width, 3))
