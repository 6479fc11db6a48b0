"""After a short training the router tells apart casts and places that it was never shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations

import pytest
import torch

from pipeline import adapters
from pipeline.batch import Batch
from pipeline.config import LossConfig, ModelConfig, NoiseConfig
from pipeline.families.contract import Given
from pipeline.model import Model
from pipeline.objective import losses, objective
from pipeline.objective.losses import Prediction
from tests.property_table import DIM, HEIGHT, WIDTH, Table

FRAMES, SIDE, STEPS, BATCH = 3, 16, 500, 8
COLOURS = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]])
FACES = torch.nn.functional.normalize(torch.randn(6, DIM, generator=torch.Generator().manual_seed(1)), dim=-1)
PLACES = [(y, x) for y in range(0, HEIGHT - SIDE + 1, 8) for x in range(0, WIDTH - SIDE + 1, 8)]
NEW_PLACES, KNOWN_PLACES = PLACES[::3], [place for i, place in enumerate(PLACES) if i % 3]
NEW_CASTS = [(0, 3), (3, 0), (1, 4), (4, 1), (2, 5), (5, 2)]  # each person is known, none with this other one
KNOWN_CASTS = [cast for cast in permutations(range(6), 2) if cast not in NEW_CASTS]


def batch_of(
    num: int, casts: Sequence[tuple[int, ...]], places: Sequence[tuple[int, int]], seed: int
) -> Batch:
    """Two coloured squares each, who do not touch each other, with faces that go with the colours."""
    generator = torch.Generator().manual_seed(seed)

    def pick(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    label_map = torch.zeros(num, FRAMES, HEIGHT, WIDTH, dtype=torch.uint8)
    video = 0.1 * torch.randn(num, 3, FRAMES, HEIGHT, WIDTH, generator=generator)
    chosen = torch.tensor([casts[pick(len(casts))] for _ in range(num)])  # [B,2]
    for sample, cast in enumerate(chosen.tolist()):
        first = places[pick(len(places))]
        apart = [p for p in places if max(abs(p[0] - first[0]), abs(p[1] - first[1])) >= SIDE]
        for slot, (y, x) in enumerate((first, apart[pick(len(apart))])):
            at = (..., slice(y, y + SIDE), slice(x, x + SIDE))
            label_map[sample][at] = slot + 1
            video[sample][at] += COLOURS[cast[slot]].view(3, 1, 1, 1)
    faces = FACES[chosen][:, :, None] + 0.05 * torch.randn(num, 2, 4, DIM, generator=generator)
    faces = torch.nn.functional.normalize(faces, dim=-1)
    return Batch(
        video=video,
        label_map=label_map,
        references=faces,
        reference_mask=torch.ones(num, 2, 4, dtype=torch.bool),
        own_faces=faces[:, :, 0],
        own_mask=torch.ones(num, 2, dtype=torch.bool),
        cast_mask=torch.ones(num, 2, dtype=torch.bool),
        cast=(("one", "other"),) * num,
        captions=("two squares",) * num,
        keys=tuple(f"{seed}-{i}" for i in range(num)),
        positions=torch.arange(num) + seed * num,
    )


@torch.no_grad()
def predicted(model: Model, batch: Batch, noise_level: float) -> Prediction:
    family, num = model.family, len(batch.video)
    clean = family.encode(batch.video).latents
    level = torch.full((num, clean.shape[2]), noise_level)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    noisy, target = family.process.noisy(clean, noise, level)
    tokens = model.identity(batch.references, batch.reference_mask)
    context = model.identity.context(tokens, batch.cast_mask, torch.ones(num))
    velocity = model.velocity(noisy, level, Given(family.embed_text(batch.captions)), context)
    coverage = family.grid.coverage(batch.label_map, 2)
    routing = tuple(context.routing[layer] for layer in sorted(context.routing))
    taken = torch.ones(num, dtype=torch.bool)
    return Prediction(
        velocity, target, torch.ones_like(level), coverage, family.grid.tokens(coverage), routing, taken
    )


def accuracy(prediction: Prediction) -> float:
    return losses.router_accuracy(prediction).mean().item()


@pytest.mark.slow
def test_it_routes_casts_and_places_it_was_never_shown(
    new_model: Callable[..., Model], model_config: ModelConfig, table: Table
) -> None:
    drawn, weights = NoiseConfig(cast_drop=0.0, text_drop=0.0), LossConfig(routing=1.0)
    config = replace(model_config, noise=drawn, losses=weights)
    model = new_model(trained=False, config=config)
    made = objective.build(config, model, seed=0)
    groups = adapters.trainable_groups(model.transformer, model.identity, config.adapter)
    optimizer = torch.optim.AdamW(groups)
    for step in range(STEPS):
        scalars = made(batch_of(BATCH, KNOWN_CASTS, KNOWN_PLACES, seed=step))
        optimizer.zero_grad()
        scalars["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    held_out = batch_of(64, NEW_CASTS, NEW_PLACES, seed=10_000)
    found = {level: predicted(model, held_out, level) for level in (0.1, 0.5, 0.8)}
    for level, prediction in found.items():
        table.note(
            f"10 router accuracy, held out, noise level {level}", "tiny", f"{accuracy(prediction):.3f}"
        )
    logits = found[0.1].routing[0]
    guesses = {
        "chance": torch.rand(logits.shape, generator=torch.Generator().manual_seed(0)),
        "always nobody": torch.eye(3)[0].expand(logits.shape),
    }
    for name, guess in guesses.items():
        figure = accuracy(replace(found[0.1], routing=(guess,)))
        table.note(f"10 router accuracy, {name}", "tiny", f"{figure:.3f}")
        assert accuracy(found[0.1]) > 2 * figure
