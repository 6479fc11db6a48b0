"""Which sources are kept from training, and that any number of ranks finds what one finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch

from data_prep.records import InputError
from data_prep.shards import IndexRow
from pipeline.batch import Batch
from pipeline.config import ModelConfig, ValidationConfig
from pipeline.data.frozen import encoded
from pipeline.model import Model
from pipeline.objective import curves, objective
from pipeline.training.validation import FIRST_POSITION, Validation, held_out

MakeBatch = Callable[..., Batch]
CONFIG = ValidationConfig(every_steps=10, levels=(0.2, 0.8))


def rows(*counts: int) -> list[IndexRow]:
    """So many samples of each source."""
    return [
        IndexRow("0.tar", f"k{source}-{n}", 0, 1, "", "clip", f"source{source}", ("a",))
        for source, count in enumerate(counts)
        for n in range(count)
    ]


def test_whole_sources_are_kept_until_they_hold_the_share() -> None:
    some = rows(*[4] * 50)
    kept = held_out(some, 0.1, seed=0)
    assert len(kept) == 5  # 20 of 200 samples
    assert kept == held_out(some[::-1], 0.1, seed=0) != held_out(some, 0.1, seed=1)
    assert held_out(some, 0.0, seed=0) == frozenset()
    more = held_out([*some, *rows(*[4] * 60)[200:]], 0.1, seed=0)
    assert len(kept & more) >= 4  # a source stays where it was when others come


def test_one_source_cannot_be_divided() -> None:
    with pytest.raises(InputError, match=r"data\.held_out=0\.1.*1 source"):
        held_out(rows(8), 0.1, seed=0)


@dataclass
class Alone:
    """What an engine offers, without one."""

    made: objective.DiffusionObjective

    def evaluate(self, batch: Batch, level: float) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            scalars: dict[str, torch.Tensor] = self.made(batch, level)
        return scalars


@pytest.fixture
def engine(new_model: Callable[..., Model], model_config: ModelConfig) -> Alone:
    return Alone(objective.build(model_config, new_model(), seed=0))


def found(engine: Alone, make_batch: MakeBatch, world: int) -> dict[str, float]:
    """The figures of three samples, over so many ranks."""

    def load(k: int) -> Batch:
        return replace(make_batch(num_samples=1, seed=k), positions=torch.tensor([FIRST_POSITION + k]))

    parts = [
        Validation(CONFIG, load, 3, (rank, world)).run(engine, 10, lambda: None) for rank in range(world)
    ]
    totals = {name: torch.stack([part[name] for part in parts]).sum(0).tolist() for name in parts[0]}
    return curves.divided({name: (total, count) for name, (total, count) in totals.items()})


def test_any_number_of_ranks_finds_what_one_finds(engine: Alone, make_batch: MakeBatch) -> None:
    alone = found(engine, make_batch, 1)
    assert alone["validation_loss"] == pytest.approx(
        (alone["validation_loss_at_0.20"] + alone["validation_loss_at_0.80"]) / 2
    )
    for world in (2, 4):  # the fourth of four has no sample of its own
        assert found(engine, make_batch, world) == pytest.approx(alone, rel=1e-5)


def test_it_asks_the_same_each_time_and_at_the_level_it_says(engine: Alone, make_batch: MakeBatch) -> None:
    assert found(engine, make_batch, 1) == found(engine, make_batch, 1)
    batch = make_batch()
    scalars = engine.evaluate(batch, 0.3)
    at = [name for name, value in scalars.items() if "_at_" in name and value[1] > 0]
    assert at == ["loss_diffusion_at_0.25_0.50"]
    assert scalars["cross_face_share"] == 1.0
    dropped = replace(engine.made.config.noise, text_drop=1.0, cast_drop=1.0, cross_face=0.0)
    engine.made.config = replace(engine.made.config, noise=dropped)
    again = engine.evaluate(batch, 0.3)
    torch.testing.assert_close(again["loss_diffusion"], scalars["loss_diffusion"], atol=0, rtol=0)


def test_a_batch_that_was_encoded_answers_as_its_videos_do(engine: Alone, make_batch: MakeBatch) -> None:
    batch, family = make_batch(), engine.made.model.family
    once = encoded(batch, family, torch.device("cpu"))
    assert once.video is None
    for level in CONFIG.levels:
        first, second = engine.evaluate(batch, level), engine.evaluate(once, level)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_its_turn_comes_by_the_step() -> None:
    validation = Validation(CONFIG, lambda k: pytest.fail("nobody asked"), 3, (0, 1))
    assert [step for step in range(1, 31) if validation.due(step)] == [10, 20, 30]
    assert not Validation(replace(CONFIG, every_steps=0), lambda k: pytest.fail(), 3, (0, 1)).due(10)
