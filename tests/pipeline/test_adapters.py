"""What is trained, and LoRA on its way through peft's own format and into the weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from data_prep.records import InputError
from pipeline import adapters
from pipeline.config import AdapterConfig
from pipeline.families.contract import Given
from pipeline.model import Model

NewModel = Callable[..., Model]
LORA = AdapterConfig(kind="lora", rank=4, alpha=7.0, learning_rate=1e-4, identity_learning_rate=1e-3)


def answer(model: Model) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    video = torch.rand(1, 3, 3, 32, 48, generator=generator)
    with torch.no_grad():
        text = model.family.embed_text(["a man"])
        latents = model.family.encode(video).latents
        return model.velocity(latents, torch.full((1, latents.shape[2]), 0.5), Given(text), None)


@pytest.fixture
def adapted(new_model: NewModel) -> Model:
    """A model whose LoRA has learned something."""
    model = new_model()
    adapters.apply(model.transformer, model.identity, LORA, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.transformer.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1, generator=generator)
    return model


def test_full_trains_everything(new_model: NewModel) -> None:
    model = new_model()
    adapters.apply(model.transformer, model.identity, AdapterConfig(), seed=0)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("train_identity", [True, False])
def test_lora_trains_its_own_matrices_and_identity_as_told(new_model: NewModel, train_identity: bool) -> None:
    model = new_model()
    config = AdapterConfig(kind="lora", rank=4, train_identity=train_identity)
    before = answer(model)
    adapters.apply(model.transformer, model.identity, config, seed=0)
    trained = {n for n, p in model.transformer.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 2 * 4 * 2 and all(
        "lora_" in n for n in trained
    )  # layers, attentions, targets, A and B
    assert all(p.requires_grad == train_identity for p in model.identity.parameters())
    assert torch.equal(answer(model), before)


def test_none_trains_identity_alone(new_model: NewModel) -> None:
    model, config = new_model(), AdapterConfig(kind="none", identity_learning_rate=1e-3)
    adapters.apply(model.transformer, model.identity, config, seed=0)
    assert not any(p.requires_grad for p in model.transformer.parameters())
    (group,) = adapters.trainable_groups(model.transformer, model.identity, config)
    assert (group["name"], group["lr"]) == ("identity", 1e-3)
    assert len(group["params"]) == len(list(model.identity.parameters()))


def test_a_training_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"kind=none with .*train_identity=false: nothing would be trained"):
        adapters.check(AdapterConfig(kind="none", train_identity=False))
    with pytest.raises(InputError, match=r"targets=\[\]: a LoRA needs layers"):
        adapters.check(AdapterConfig(kind="lora", targets=()))
    adapters.check(AdapterConfig(kind="none"))


@pytest.mark.parametrize("targets", [("to_q", "q_proj"), ("q_proj",), ("q",)])
def test_targets_that_are_no_layers_are_named_beside_those_that_are(
    targets: tuple[str, ...], new_model: NewModel
) -> None:
    model, config = new_model(), AdapterConfig(kind="lora", targets=targets)
    with pytest.raises(InputError) as error:
        adapters.apply(model.transformer, model.identity, config, seed=0)
    assert f"model.adapter.targets: {targets[-1]} match no linear layer" in str(error.value)
    assert "attn1.to_q" in str(error.value)
    assert "to_out.0" in str(error.value)


def test_groups_hold_each_trainable_parameter_once_at_its_rate(new_model: NewModel) -> None:
    model = new_model()
    adapters.apply(model.transformer, model.identity, LORA, seed=0)
    groups = adapters.trainable_groups(model.transformer, model.identity, LORA)
    assert {g["name"]: g["lr"] for g in groups} == {"transformer": 1e-4, "identity": 1e-3}
    held = [id(p) for g in groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    model.identity.requires_grad_(False)
    assert [g["name"] for g in adapters.trainable_groups(model.transformer, model.identity, LORA)] == [
        "transformer"
    ]


def test_lora_starts_alike_for_one_seed(new_model: NewModel) -> None:
    starts = []
    for seed in (0, 0, 1):
        model = new_model()
        adapters.apply(model.transformer, model.identity, LORA, seed)
        starts.append(
            torch.cat([p.flatten() for n, p in model.transformer.named_parameters() if "lora_A" in n])
        )
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])


def test_peft_itself_loads_a_saved_lora_into_a_fresh_model(
    adapted: Model, new_model: NewModel, tmp_path: Path
) -> None:
    adapters.save_lora(adapted.transformer, tmp_path)
    fresh = new_model()
    assert (answer(fresh) - answer(adapted)).abs().max() > 1e-3
    PeftModel.from_pretrained(fresh.transformer, tmp_path)  # type: ignore[arg-type]
    assert (answer(fresh) - answer(adapted)).abs().max() == 0
    assert json.loads((tmp_path / "adapter_config.json").read_text())["lora_alpha"] == 7.0


def test_lora_loads_through_ours_and_is_frozen(adapted: Model, new_model: NewModel, tmp_path: Path) -> None:
    adapters.save_lora(adapted.transformer, tmp_path)
    fresh = new_model()
    adapters.load_lora(fresh.transformer, tmp_path)
    assert torch.equal(answer(fresh), answer(adapted))
    assert not any(p.requires_grad for n, p in fresh.transformer.named_parameters() if "lora_" in n)


def test_base_is_saved_without_lora(adapted: Model, new_model: NewModel, tmp_path: Path) -> None:
    adapters.save_base(adapted.transformer, tmp_path)
    plain = type(adapted.transformer).from_pretrained(tmp_path).state_dict()  # type: ignore[attr-defined]
    original = new_model().transformer.state_dict()
    assert plain.keys() == original.keys() and all(torch.equal(plain[k], original[k]) for k in plain)


def test_no_lora_no_folder(new_model: NewModel, tmp_path: Path) -> None:
    adapters.save_lora(new_model().transformer, tmp_path / "lora")
    assert not (tmp_path / "lora").exists()


def test_a_second_lora_starts_where_the_first_ended(adapted: Model) -> None:
    before = answer(adapted)
    adapters.apply(adapted.transformer, adapted.identity, LORA, seed=5)
    torch.testing.assert_close(answer(adapted), before, atol=1e-5, rtol=1e-5)
    assert adapters.has_lora(adapted.transformer)
    adapters.fold_lora(adapted.transformer)
    assert not adapters.has_lora(adapted.transformer)
    assert not any("lora_" in n for n in adapted.transformer.state_dict())
