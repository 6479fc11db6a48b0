"""What goes into which shard: by bytes and number, in order; the rest of packing is in test_flow.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from data_prep.config import PackConfig
from data_prep.packing.pack import group
from data_prep.selection.samples import LONGEST_ID, expected_bytes, sample_key
from data_prep.shards import encode_sample
from data_prep.shards.sample import MAX_KEY
from tests.many_shards import resized
from tests.small_shards import make_sample


def plans(*sizes: int) -> list[Any]:
    return [SimpleNamespace(num_bytes=size) for size in sizes]


@pytest.mark.parametrize(
    ("sizes", "limits", "wanted"),
    [
        ((40, 40, 40), PackConfig(shard_bytes=100), [2, 1]),
        ((40, 60, 1), PackConfig(shard_bytes=100), [2, 1]),
        ((300, 40, 300, 300), PackConfig(shard_bytes=100), [1, 1, 1, 1]),
        ((1,) * 7, PackConfig(shard_bytes=100, samples_per_shard=3), [3, 3, 1]),
        ((), PackConfig(), []),
    ],
)
def test_a_shard_is_closed_before_it_grows_too_large(
    sizes: tuple[int, ...], limits: PackConfig, wanted: list[int]
) -> None:
    parts = list(group(plans(*sizes), limits))
    assert [len(part) for part in parts] == wanted
    assert [plan.num_bytes for part in parts for plan in part] == list(sizes)


@pytest.mark.parametrize("size", [(96, 160), (240, 416)])
def test_what_a_sample_is_expected_to_weigh_is_near_what_it_weighs(size: tuple[int, int]) -> None:
    sample = resized(make_sample(5), size, 5)
    weight = sum(len(data) + 512 + -len(data) % 512 for data in encode_sample(sample).values())
    num_references = sum(len(slot) for slot in sample.references)
    expected = expected_bytes(len(sample.mp4), sample.label_map.size, num_references)
    assert expected == pytest.approx(weight, rel=0.25)


def test_keys_of_very_long_names_fit_a_tar_and_differ() -> None:
    keys = {sample_key("x" * LONGEST_ID + end, 12) for end in ("", "a", "b", "a" * 250)}
    assert len(keys) == 4
    assert all(len(key) <= MAX_KEY for key in keys)
    assert sample_key("x" * LONGEST_ID, 12) == "x" * LONGEST_ID + "-0012"
