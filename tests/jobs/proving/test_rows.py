"""The rows of the proof: names, what they build on, and configurations that a training takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from data_prep.records import InputError
from jobs import config as configs
from jobs.proving.casting import ADDED, TAKES
from jobs.proving.config import ProofConfig, check
from jobs.proving.rows import ROWS, Row
from jobs.proving.training import Places, base_config, row_config
from jobs.train_checks import check as check_training
from pipeline.config import GenerateConfig
from pipeline.strategies.names import parse

NAMES = {f"c-{number}": name for number, name in enumerate(TAKES)}
PLACES = Places(Path("proof"))
TRAINED = [row for row in ROWS if row.trains]


def test_a_row_builds_on_one_that_is_trained_before_it() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    for row in ROWS:
        assert not row.of or (
            names.index(row.of) < names.index(row.name) and ROWS[names.index(row.of)].trains
        )


@pytest.mark.parametrize("row", TRAINED, ids=lambda row: row.name)
def test_a_training_takes_every_rows_configuration(row: Row) -> None:
    config = row_config(row, ProofConfig(), PLACES, NAMES)
    unlocked = replace(config.model, adapter=replace(config.model.adapter, lock=()))  # a lock needs the base
    check_training(replace(config, base="", model=unlocked))
    hidden = {NAMES[character] for character in config.data.exclude_characters}
    assert (hidden == {ADDED}) != row.added
    assert config.data.pack == "embedded"  # that of the deciding recogniser is another


def test_all_rows_are_trained_alike_but_for_what_they_are_about() -> None:
    flat = {row.name: configs.flat(row_config(row, ProofConfig(), PLACES, NAMES)) for row in TRAINED}
    plain = flat["full"]
    for row in TRAINED:
        changed = {key for key, value in flat[row.name].items() if plain.get(key) != value} - {"run", "base"}
        if not row.added:
            assert changed == {key.split("=")[0] for key in row.train}


def test_the_base_knows_nobody() -> None:
    base = base_config(ProofConfig(), PLACES, NAMES)
    assert base.model.noise.cast_drop == 1
    assert not base.model.adapter.train_identity


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_generation_takes_every_rows_keys(row: Row) -> None:
    config = configs.load(GenerateConfig, None, row.draw)
    parse(config.strategy.name)


def test_asking_for_a_row_asks_for_what_it_draws_from() -> None:
    assert [row.name for row in ProofConfig(rows=("anchor-alone", "added")).chosen()] == [
        "full",
        "anchored",
        "anchor-alone",
        "added",
    ]
    assert "identity-loss" not in [row.name for row in ProofConfig().chosen()]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rows": ("ful",)}, "rows: ful unknown; there are none, pooled"),
        ({"steps": 0}, "steps=0: must be at least 1"),
        ({"seeds": 0}, "seeds=0: must be from 1 to 100"),
        ({"repeats": 0}, "repeats=0"),
        ({"num_processes": 0}, "num_processes=0"),
    ],
)
def test_what_no_proof_can_have_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check(ProofConfig(**wrong))  # type: ignore[arg-type]
