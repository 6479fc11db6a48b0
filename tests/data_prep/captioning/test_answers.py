"""Answers outlive the process, a torn line and another writer."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.captioning.answers import Answers
from data_prep.captioning.questions import Answer
from data_prep.records import InputError

ONE, TWO = Answer(("a woman", "a man"), "<person-1> waves"), Answer(("ある人",), "駅")


def test_what_was_answered_is_known_again_and_so_is_what_it_cost(tmp_path: Path) -> None:
    path = tmp_path / "new" / "answers.jsonl"
    first = Answers(path)
    first.add("one", ONE, 0.25)
    first.add("none", None, 0.125)
    other = Answers(path)
    other.add("two", TWO, 0.5)
    first.add("three", ONE, 1.0)
    again = Answers(path)
    assert [again.get(key) for key in ("one", "none", "two", "three")] == [ONE, None, TWO, ONE]
    assert again.spent_usd == 1.875


def test_a_torn_last_line_costs_that_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    Answers(path).add("one", ONE, 1.0)
    Answers(path).add("two", TWO, 1.0)
    path.write_bytes(path.read_bytes()[:-9])
    again = Answers(path)
    assert (again.get("one"), again.get("two")) == (ONE, None)
    again.add("two", TWO, 1.0)
    assert Answers(path).get("two") == TWO


def test_a_place_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"captions\.cache: .* cannot be read: Is a directory"):
        Answers(tmp_path)
