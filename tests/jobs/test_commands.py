"""A job's command is checked as a person's would be, and its configuration kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_prep.config import PrepareConfig
from data_prep.records import InputError
from jobs import config as configs
from jobs.commands import resolve
from pipeline.config import TrainConfig


def test_words_lose_their_configuration_and_keep_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("num_steps: 7\nseed: 3\n")
    words = ["train", "--config", "a.yaml", "data.shards=x y", "seed=4"]
    made = resolve(
        words,
        {"num_steps": 9, "data": {"num_frames": 3}, "names": {"c1": "Anna"}},
        tmp_path / "run",
        tmp_path,
    )
    assert made.words == ("train",)
    assert made.ranked
    assert isinstance(made.config, TrainConfig)
    assert (made.config.num_steps, made.config.seed, made.config.data.shards) == (9, 4, "x y")
    assert made.config.run == str(tmp_path / "run")  # a training without run= runs in the job's folder
    assert made.config.names == {"c1": "Anna"}


def test_numbers_stay_numbers_and_truth_stays_truth(tmp_path: Path) -> None:
    keys = {"num_steps": 1, "seed": 0, "engine.activation_checkpointing": True, "engine.accumulation": 1}
    made = resolve(["train", "data.shards=s"], keys, tmp_path, tmp_path)
    assert (made.config.num_steps, made.config.seed) == (1, 0)
    assert (made.config.engine.activation_checkpointing, made.config.engine.accumulation) == (True, 1)


def test_positional_arguments_stay(tmp_path: Path) -> None:
    made = resolve(["prepare", "a=b.csv", "--output", "out", "windows.stride=3"], {}, tmp_path, tmp_path)
    assert made.words == ("prepare", "a=b.csv", "--output", "out")
    assert isinstance(made.config, PrepareConfig)
    assert (made.config.manifest, made.config.output, made.config.windows.stride) == ("a=b.csv", "out", 3)
    assert not made.ranked


def test_the_kept_configuration_says_the_same(tmp_path: Path) -> None:
    made = resolve(
        ["train", "data.shards=s"],
        {"model.adapter.targets": ["to_q", "a: b"], "base": "it's"},
        tmp_path,
        tmp_path,
    )
    path = configs.save(made.config, tmp_path)
    assert configs.load(TrainConfig, path, []) == made.config
    assert made.config.model.adapter.targets == ("to_q", "a: b")
    assert made.config.base == "it's"


@pytest.mark.parametrize(
    ("words", "keys", "message"),
    [
        (["fly"], {}, "command: came 'fly'; a job's command begins with one of prepare"),
        (["submit", "x"], {}, "command: came 'submit'"),
        (["train"], {}, "data.shards: no value"),
        (["train", "data.shards=x", "num_stps=3"], {}, "did you mean 'num_steps'"),
        (["train", "data.shards=x"], {"num_stps": 3}, "did you mean 'num_steps'"),
        (["train", "data.shards=x"], {"engine": {"zero_stage": 9}}, "engine.zero_stage"),
        (["train", "data.shards=x", "--fast"], {}, "unrecognised --fast"),
        (["train", "--config", "/none.yaml"], {}, "/none.yaml' does not exist"),
        (["prepare", "a.csv"], {}, "--output"),
        (["report", "x"], {"a": 1}, "keys: report takes no configuration"),
        (
            ["train", "data.shards=x"],
            {"tracking": {"uri": "postgresql://me:pw@host/db"}},
            "holds a user or password",
        ),
        (["doctor", "--tracking-uri", "http://me:pw@host"], {}, "a URL with a user or password in it"),
        (["train", "data.shards=x"], {"base": "${oc.env:HOME}"}, "'${' is how"),
    ],
)
def test_wrong_commands_are_found_before_they_are_sent(
    words: list[str], keys: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        resolve(words, keys, tmp_path, tmp_path)
    assert message in str(caught.value)
    assert "pw@" not in str(caught.value)
