"""Configuration: the order of the layers, and what a person reads after a slip."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from data_prep.config import PrepareConfig
from data_prep.records import InputError
from jobs import config
from jobs.train_checks import ALLOWED
from pipeline.config import TrainConfig


@dataclass(frozen=True)
class Inner:
    learning_rate: float = 1e-4
    kind: Literal["full", "lora"] = "full"


@dataclass(frozen=True)
class Outer:
    output: str = "???"
    num_steps: int = 10
    inner: Inner = field(default_factory=Inner)


def yaml(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_later_layers_win_and_the_result_is_frozen(tmp_path: Path) -> None:
    file = yaml(tmp_path / "a.yaml", "output: from_file\nnum_steps: 20\ninner: {kind: lora}\n")
    made = config.load(Outer, file, ["num_steps=30", "inner.learning_rate=2e-3"])
    assert made == Outer("from_file", 30, Inner(2e-3, "lora"))
    with pytest.raises(FrozenInstanceError):
        made.num_steps = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["output=x", "num_step=3"],
            r"argument 'num_step=3': unknown key 'num_step'; did you mean 'num_steps'",
        ),
        (["output=x", "inner.learnin_rate=3"], r"did you mean 'inner.learning_rate'"),
        (["output=x", "learning_rate=3"], r"did you mean 'inner.learning_rate'"),
        (["output=x", "zzz.q=3"], r"unknown key 'zzz.*allowed here: output, num_steps, inner"),
        (["output=x", "num_steps=many"], r"num_steps: Value 'many'.*Integer"),
        (["output=x", "inner.kind=half"], r"inner.kind: .*half.*"),
        (["output=x", "num_steps"], r"argument 'num_steps': key=value is wanted"),
        ([], r"output: no value; give it as output=VALUE"),
    ],
)
def test_slips_are_answered_with_what_is_meant(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        config.load(Outer, None, overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "num_stepps: 3\n",
            r"configuration file '.*a.yaml': unknown key 'num_stepps'; did you mean 'num_steps'",
        ),
        ("- 1\n", "holds a list"),
        ("a: [1\n", "is not YAML"),
        ("num_steps: {a: 1}\n", "num_steps"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        config.load(Outer, yaml(tmp_path / "a.yaml", text), ["output=x"])


def test_an_absent_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        config.load(Outer, tmp_path / "none.yaml", ["output=x"])
    with pytest.raises(InputError, match="is a folder"):
        config.load(Outer, tmp_path, ["output=x"])


def test_the_resolved_file_loads_to_the_same_object(tmp_path: Path) -> None:
    made = config.load(PrepareConfig, None, ["manifest=a.csv", "output=b", "windows.num_frames=9"])
    assert config.load(PrepareConfig, config.save(made, tmp_path / "out"), []) == made
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["config.yaml"]


TRAININGS = sorted(Path("jobs/configs").glob("train_*.yaml"))


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.stem)
def test_every_training_that_comes_along_can_be_started(path: Path) -> None:
    made = config.load(TrainConfig, path, ["run=runs/x", "data.shards=shards"])
    config.check_ranges(made, ALLOWED)
    assert made.batch_size % (made.engine.num_processes * made.engine.accumulation) == 0
    settings = re.findall(r"(windows\.\w+=\d+)", path.read_text())
    if settings:  # what its comment says of castbank prepare gives samples that it can take whole
        places = ["manifest=short.csv", "output=shards"]
        windows = config.load(PrepareConfig, None, [*places, *settings]).windows
        span = (made.data.num_frames - 1) * made.data.frame_stride + 1
        assert (windows.num_frames - 1) * windows.stride + 1 == span * windows.stride
        assert windows.num_frames % 4 == 1
        assert windows.width_px % 16 == windows.height_px % 16 == 0
