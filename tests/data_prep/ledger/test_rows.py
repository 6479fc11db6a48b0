"""The ledger comes back as it went in, in one order, with the same bytes, readable without us."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow.parquet

from data_prep import ledger
from data_prep.records import Decision

DECISIONS = [
    Decision(
        "b-0001", "window", "dropped", "select", "too_few_references", "1", ">= 3", detail="c1: 4 score < 0.8"
    ),
    Decision("b-0000", "sample", "kept", "select"),
    Decision("b", "clip", "kept", "analyse"),
    Decision(
        "a",
        "clip",
        "quarantined",
        "analyse",
        "failed",
        "3",
        "3 attempts",
        "WorkerCrashedError",
        3,
        "ü\n",
        "x",
    ),
    Decision("c-0000", "window", "dropped", "select", "too_few_references", "0", ">= 3"),
]


def test_it_reads_back_ordered_and_with_the_same_bytes(tmp_path: Path) -> None:
    ledger.write(tmp_path / "one", DECISIONS)
    ledger.write(tmp_path / "two", random.Random(0).sample(DECISIONS, len(DECISIONS)))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    again = ledger.read(tmp_path / "one")
    assert sorted(again, key=repr) == sorted(DECISIONS, key=repr)
    assert [d.item for d in again] == ["a", "b", "b-0000", "b-0001", "c-0000"]


def test_any_tool_can_ask_it(tmp_path: Path) -> None:
    ledger.write(tmp_path / "ledger.parquet", DECISIONS)
    table = pyarrow.parquet.read_table(tmp_path / "ledger.parquet", filters=[("fate", "==", "quarantined")])
    assert table.to_pylist()[0]["replay"] == "x"
    assert table.to_pylist()[0]["attempts"] == 3


def test_an_empty_ledger_is_a_table_too(tmp_path: Path) -> None:
    ledger.write(tmp_path / "ledger.parquet", [])
    assert ledger.read(tmp_path / "ledger.parquet") == []


def test_losses_are_counted_by_rule_most_frequent_first() -> None:
    assert ledger.count_by_rule(DECISIONS) == {"window: too_few_references": 2, "clip: failed": 1}
