"""The split: whole groups of sources, against a plain search through shared people; stable when clips are added."""

from __future__ import annotations

import random
from collections.abc import Collection

import pytest

from data_prep.records import InputError
from data_prep.selection.splits import joined, split_sources


def reachable(source: str, people: list[Collection[str]]) -> set[str]:
    """Sources that one comes to by walking from person to person, the slow way."""
    found, before = {source}, set[str]()
    while found != before:
        before = set(found)
        for shown in people:
            if found & set(shown):
                found |= set(shown)
    return found


def corpus(
    seed: int, num_sources: int = 40, num_people: int = 45
) -> tuple[dict[str, int], list[Collection[str]]]:
    dice = random.Random(seed)
    counts = {f"film-{k}": dice.randint(0, 9) for k in range(num_sources)}
    people = [dice.sample(sorted(counts), dice.choice([1, 1, 1, 2])) for _ in range(num_people)]
    return counts, people


@pytest.mark.parametrize("seed", range(6))
def test_nobody_is_on_both_sides_and_groups_are_as_small_as_they_can_be(seed: int) -> None:
    counts, people = corpus(seed)
    sides = split_sources(counts, people, 0.2, {})
    assert sides.keys() == counts.keys()
    for shown in people:
        assert len({sides[source] for source in shown}) == 1
    for group in joined(counts, people):
        assert set(group) == reachable(group[0], people)
    apart = sum(counts[source] for source, side in sides.items() if side == "validation")
    largest = max(sum(counts[source] for source in group) for group in joined(counts, people))
    assert 0 < apart <= 0.2 * sum(counts.values()) + largest


def test_the_share_is_met_where_groups_are_small() -> None:
    counts = {f"film-{k}": 3 for k in range(200)}
    sides = split_sources(counts, [], 0.1, {})
    assert sum(side == "validation" for side in sides.values()) == 20
    assert sides == split_sources(dict(reversed(counts.items())), [], 0.1, {})


def test_added_sources_move_nobody() -> None:
    counts, people = corpus(1)
    before = split_sources(counts, people, 0.2, {})
    more = {f"new-{k}": 4 for k in range(8)}
    after = split_sources({**counts, **more}, people, 0.2, before)
    assert before.items() <= after.items()


def test_who_turns_out_to_be_on_both_sides_is_for_training_with_all_who_belong_to_them() -> None:
    counts = {"a": 5, "b": 5, "c": 5, "d": 5}
    before = {"a": "train", "b": "validation", "c": "validation", "d": "train"}
    sides = split_sources(counts, [["a", "b"], ["b"], ["c"]], 0.5, before)  # type: ignore[arg-type]
    assert sides == {"a": "train", "b": "train", "c": "validation", "d": "train"}


def test_a_share_smaller_than_every_group_takes_the_smallest() -> None:
    assert split_sources({"a": 50, "b": 40}, [], 0.01, {}) == {"a": "train", "b": "validation"}


def test_without_a_share_all_are_for_training() -> None:
    assert set(split_sources(*corpus(2), 0.0, {}).values()) == {"train"}


def test_one_group_alone_is_refused_and_said() -> None:
    with pytest.raises(InputError, match=r"pack\.validation=0\.2: 2 sources .* set it to 0, prepare"):
        split_sources({"a": 5, "b": 5, "empty": 0}, [["a", "b"]], 0.2, {})


def test_what_was_trained_on_is_never_for_validation_even_where_none_is_left_for_it() -> None:
    before = {"a": "train", "b": "validation"}
    with pytest.raises(InputError, match=r"1 sources .* were for train before, .* or take a new output"):
        split_sources({"a": 5, "b": 0}, [], 0.2, before)  # type: ignore[arg-type]
