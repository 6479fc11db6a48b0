"""A model goes to disk and comes back to the last bit, with and without LoRA; strangers are refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data_prep.records import InputError
from pipeline import adapters
from pipeline import model as models
from pipeline.batch import Batch
from pipeline.config import ModelConfig
from pipeline.families.contract import Given
from pipeline.model import Model

NewModel = Callable[..., Model]


@pytest.fixture
def batch(make_batch: Callable[..., Batch]) -> Batch:
    return make_batch()


def answer(model: Model, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        tokens = model.identity(batch.references, batch.reference_mask)
        context = model.identity.context(tokens, batch.cast_mask, torch.ones(2))
        given = Given(model.family.embed_text(batch.captions))
        latents = model.family.encode(batch.video).latents
        level = torch.tensor([[0.2], [0.9]]).expand(2, latents.shape[2])
        return model.velocity(latents, level, given, context)


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_saved_and_loaded_it_answers_alike(
    kind: str, new_model: NewModel, model_config: ModelConfig, batch: Batch, tmp_path: Path
) -> None:
    config = replace(model_config, adapter=replace(model_config.adapter, kind=kind, rank=2, alpha=5.0))  # type: ignore[arg-type]
    model = new_model(config=config)
    adapters.apply(model.transformer, model.identity, config.adapter, seed=0)
    for name, parameter in model.transformer.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, 0, 0.1)
    models.save(model, tmp_path)
    loaded = models.load(tmp_path)
    assert loaded.config == config
    assert torch.equal(answer(loaded, batch), answer(model, batch))
    assert (tmp_path / "lora").is_dir() == (kind == "lora")


def test_a_copy_is_a_model_of_its_own(new_model: NewModel, batch: Batch) -> None:
    model = new_model()
    twin = copy.deepcopy(model)
    before = answer(model, batch)
    assert torch.equal(answer(twin, batch), before)
    for parameter in twin.parameters():
        parameter.data.mul_(1.5)
    assert torch.equal(answer(model, batch), before)
    assert not torch.equal(answer(twin, batch), before)


def test_same_seed_same_model(new_model: NewModel) -> None:
    first, second = (new_model(trained=False).state_dict() for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_the_transformer_keeps_its_own_names(new_model: NewModel) -> None:
    model = new_model()
    plain = type(model.transformer).from_config(model.transformer.config)  # type: ignore[attr-defined]
    assert model.transformer.state_dict().keys() == plain.state_dict().keys()


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not an exported model"):
        models.load(tmp_path)
