"""ZeRO on two real processes against plain PyTorch in one; learning rate; resume; another number of ranks."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep.records import InputError
from pipeline.config import EngineConfig, OptimizerConfig
from pipeline.training.engine import trained_parameters
from pipeline.training.optimizer import learning_rate_scale
from tests.small_ranks import run
from tests.small_regression import STEPS, difference, reference


@pytest.mark.parametrize(
    ("stage", "processes", "accumulation"), [(2, 2, 1), (3, 2, 2), (0, 2, 1), (1, 1, 2)], ids=str
)
def test_equals_plain_pytorch_at_the_same_global_batch(
    stage: int, processes: int, accumulation: int, tmp_path: Path
) -> None:
    config = EngineConfig(zero_stage=stage, accumulation=accumulation, timeout_s=60)
    assert difference(run(config, processes, tmp_path), reference()) <= 1e-5


def test_resumes_exactly_and_with_another_number_of_ranks(tmp_path: Path) -> None:
    config = EngineConfig(zero_stage=2, timeout_s=60)
    whole = run(config, 2, tmp_path / "whole")
    run(config, 2, tmp_path, (0, 2))
    half = tmp_path / "after-2-2"
    assert difference(run(config, 2, tmp_path, (2, STEPS), half), whole) == 0
    assert difference(run(config, 1, tmp_path, (2, STEPS), half), whole) <= 1e-5


def test_bf16_trains_near_fp32(tmp_path: Path) -> None:
    assert difference(run(EngineConfig(dtype="bf16", timeout_s=60), 2, tmp_path), reference()) <= 2e-2


def test_learning_rate_warms_up_then_falls_along_half_a_cosine() -> None:
    options = OptimizerConfig(warmup_steps=4, final_scale=0.1)
    scales = [learning_rate_scale(step, 20, options) for step in range(20)]
    assert scales[:4] == [0.25, 0.5, 0.75, 1.0]
    assert all(a >= b for a, b in itertools.pairwise(scales[3:]))
    middle = learning_rate_scale(12, 20, options)
    assert np.isclose(middle, 0.1 + 0.9 * 0.5)
    assert np.isclose(learning_rate_scale(20, 20, options), 0.1)
    assert learning_rate_scale(19, 20, OptimizerConfig(schedule="constant")) == 1.0


@pytest.mark.parametrize(
    ("stage", "parameters"), [(2, "none"), pytest.param(3, "cpu", marks=pytest.mark.slow)], ids=str
)
def test_offloading_to_the_cpu_changes_nothing(stage: int, parameters: str, tmp_path: Path) -> None:
    config = EngineConfig(
        zero_stage=stage, offload_optimizer="cpu", offload_parameters=parameters, timeout_s=60
    )
    assert difference(run(config, 2, tmp_path), reference()) <= 1e-5


def test_a_checkpoint_of_another_model_is_refused_on_every_rank(saved: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "step"
    shutil.copytree(saved, checkpoint)
    shapes = checkpoint / "engine" / "parameters.json"
    shapes.write_text(shapes.read_text().replace("layers.0.weight", "blocks.0.weight"))
    message = r"step' is of another model: 2 of its parameters differ, such as blocks\.0\.weight"
    with pytest.raises(InputError, match=message):
        run(EngineConfig(timeout_s=60), 2, tmp_path, (2, 3), checkpoint)


class Evil:
    """What an attacker would put into a checkpoint: read as a pickle, it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.system, (f"touch {self._path}",)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two processes at stage 2, after two steps."""
    folder = tmp_path_factory.mktemp("saved")
    run(EngineConfig(zero_stage=2, timeout_s=60), 2, folder, (0, 2))
    return folder / "after-2-2"


@pytest.mark.parametrize("reading", ["resume", "other-ranks", "export", "export-stage-0"])
def test_a_checkpoint_that_would_run_code_is_refused(reading: str, saved: Path, tmp_path: Path) -> None:
    name, made, checkpoint = "mp_rank_00_model_states.pt", tmp_path / "made", tmp_path / "step"
    shutil.copytree(saved, checkpoint)
    states = torch.load(checkpoint / "engine" / name, weights_only=False)
    torch.save(states | {"extra": Evil(made)}, checkpoint / "engine" / name)
    with pytest.raises(InputError, match=r"step' is refused: it holds posix\.system beside tensors"):
        if reading.startswith("export"):
            trained_parameters(checkpoint, 0 if reading == "export-stage-0" else 2)
        else:
            run(
                EngineConfig(timeout_s=60), 1 if reading == "other-ranks" else 2, tmp_path, (2, 3), checkpoint
            )
    assert not made.exists()
    torch.load(checkpoint / "engine" / name, weights_only=False)
    assert made.exists()  # it would have


def test_only_our_own_reading_is_restricted(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    before = torch.serialization.get_safe_globals()
    assert trained_parameters(saved, 2)
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    assert set(torch.serialization.get_safe_globals()) == set(before)  # it is a set inside: no order
