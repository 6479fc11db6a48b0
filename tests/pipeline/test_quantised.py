"""A quantised base against the same in full, on tiny models in the published layouts."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from data_prep.records import InputError
from pipeline import adapters
from pipeline import model as models
from pipeline.batch import Batch
from pipeline.config import AdapterConfig, CogVideoXConfig, EngineConfig, FamilyConfig, ModelConfig
from pipeline.memory.activations import Tokens
from pipeline.memory.plan import Beside, Training, count
from pipeline.memory.quantised import BasePrecision
from pipeline.memory.weights import architecture
from pipeline.model import Model
from pipeline.objective import objective
from pipeline.quantised import QuantisedLinear, check_installed, quantise, whole
from tests.small_cogvideox import TEXT_TOKENS, make_model
from tests.small_wan import config_of, make_wan

pytest.importorskip("torchao")
KINDS: tuple[BasePrecision, ...] = ("int8", "nf4")
LORA = AdapterConfig(kind="lora", rank=2)
# of a weight, relative: int8 rounds to 1/255 of a row's range, nf4's 16 levels lie 0.09 of a deviation off a normal
# distribution's numbers (root mean square)
ERROR = {"int8": 0.01, "nf4": 0.11}


def transformer_of(folder: Path, kind: str, dtype: torch.dtype = torch.float32) -> Any:
    import diffusers

    name = "WanTransformer3DModel" if kind == "wan" else "CogVideoXTransformer3DModel"
    return getattr(diffusers, name).from_pretrained(folder / "transformer", torch_dtype=dtype)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("published")
    return {
        "wan": make_wan(root / "wan", "t2v"),
        "cogvideox": make_model(root / "cogvideox", "5b"),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_computes_with_weights_that_are_near(kind: BasePrecision) -> None:
    torch.manual_seed(0)
    plain = torch.nn.Linear(96, 64)
    layer, values = QuantisedLinear(plain, kind), torch.randn(5, 96, requires_grad=True)
    near = whole(layer.weight)
    assert (near - plain.weight).norm() / plain.weight.norm() <= ERROR[kind]
    answer = layer(values)
    torch.testing.assert_close(answer, values @ near.T + plain.bias)
    answer.square().sum().backward()
    torch.testing.assert_close(values.grad, 2 * answer @ near)
    assert layer.weight.grad is None


def test_int8_rounds_within_each_row() -> None:
    torch.manual_seed(1)
    plain = torch.nn.Linear(96, 64)
    step = plain.weight.detach().abs().amax(1, keepdim=True) / 127.5
    near = whole(QuantisedLinear(plain, "int8").weight)
    assert bool(((near - plain.weight.detach()).abs() <= 0.501 * step).all())
    assert float((near / step - (near / step).round()).abs().max()) <= 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
def test_backward_keeps_no_whole_weight(kind: BasePrecision, autocast: bool) -> None:
    plain = torch.nn.Linear(512, 512, dtype=torch.bfloat16 if autocast else torch.float32)
    layer, kept = QuantisedLinear(plain, kind), []
    values = torch.randn(1, 512, requires_grad=True)

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if not is_traceable_wrapper_subclass(tensor):
            kept.append(tensor.numel())
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        answer = layer(values)
    assert answer.dtype == (torch.bfloat16 if autocast else torch.float32)
    assert sum(kept) < 512 * 8
    answer.float().sum().backward()
    assert values.grad is not None and values.grad.dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["wan", "cogvideox"])
def test_the_plan_counts_its_bytes(family: str, kind: BasePrecision, folders: dict[str, Path]) -> None:
    """Every linear layer of the blocks but those of norms is quantised, and nothing else, to the byte."""
    made = transformer_of(folders[family], family, torch.bfloat16)
    arguments = dict(made.config)
    everything = sum(p.numel() for p in made.parameters())
    for parameter in made.parameters():
        parameter.data = parameter.data.bfloat16()  # the plan counts nothing in fp32 apart
    quantise(made, kind)
    held = sum(map(bytes_of, made.parameters()))
    engine = EngineConfig(dtype="bf16", base_precision=kind)
    arch = architecture(type(made).__name__, arguments)
    counts = count(Training(arch, Tokens(1, 1, 1), Beside(0, 0), LORA, None, engine, 1))
    assert counts.frozen == everything
    assert counts.frozen_bytes(2) == held


def bytes_of(parameter: torch.Tensor) -> int:
    inner: Any = parameter
    if not is_traceable_wrapper_subclass(parameter):
        return parameter.nbytes
    return sum(getattr(inner, name).nbytes for name in inner.__tensor_flatten__()[0])


def model_of(family: str, folder: Path, config: ModelConfig) -> Model:
    if family == "wan":
        asked = config_of(folder)
    else:
        knobs = CogVideoXConfig(pretrained=str(folder), text_tokens=TEXT_TOKENS, frozen_dtype="fp32")
        asked = FamilyConfig(name="cogvideox", cogvideox=knobs)
    return models.create(replace(config, family=asked), [], seed=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["tiny", "wan"])
def test_a_lora_above_learns_and_nothing_else_does(
    family: str,
    kind: BasePrecision,
    folders: dict[str, Path],
    new_model: Callable[..., Model],
    make_batch: Callable[..., Batch],
    model_config: ModelConfig,
) -> None:
    made = new_model() if family == "tiny" else model_of(family, folders[family], model_config)
    batch = make_batch(2) if family == "tiny" else wan_batch(make_batch(2))
    with torch.no_grad():
        adapters.apply(made.transformer, made.identity, LORA, 0)
        before = float(objective.build(made.config, made, seed=0)(batch)["loss"])
    adapters.apply(made.transformer, made.identity, LORA, 0, kind)
    training = objective.build(made.config, made, seed=0)
    groups = adapters.trainable_groups(made.transformer, made.identity, replace(LORA, learning_rate=1e-2))
    optimizer, losses = torch.optim.AdamW(groups), []
    for _ in range(12):
        loss = training(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(before, rel=2 * ERROR[kind])
    assert losses[-1] < 0.95 * losses[0]
    graded = {name for name, p in training.named_parameters() if p.grad is not None}
    assert graded and all(".lora_" in name or ".identity." in name for name in graded)


def wan_batch(batch: Batch) -> Batch:
    """Of 5 frames of 32 x 48 px, as the small Wan takes them."""
    frames = torch.tensor([0, 0, 1, 1, 2])
    assert batch.video is not None and batch.label_map is not None
    return replace(batch, video=batch.video[:, :, frames], label_map=batch.label_map[:, frames])


def test_no_warning_about_what_we_never_do(new_model: Callable[..., Model]) -> None:
    made = new_model()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapters.apply(made.transformer, made.identity, LORA, 0, "int8")


def test_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.quantised.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"base_precision=nf4: torchao.*pip install -e '\.\[quantised\]'"):
        check_installed("nf4")
    check_installed("dtype")
    assert importlib.util.find_spec("torchao")
