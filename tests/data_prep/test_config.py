"""Values that no preparation can have are refused when a configuration is made, by name."""

from __future__ import annotations

import pytest

from data_prep.config import PrepareConfig
from data_prep.records import InputError
from jobs.config import load

PLACES = ["manifest=m.csv", "output=o"]


@pytest.mark.parametrize(
    "override",
    [
        "decode.long_side_px=0",
        "decode.timeout_s=0",
        "shots.threshold=-1",
        "faces.det_width=100",
        "faces.detect_every=0",
        "faces.min_score=1.5",
        "tracks.min_frames=0",
        "link.threshold=2",
        "link.max_false_accept=0",
        "link.max_chance=0",
        "windows.num_frames=1",
        "windows.stride=0",
        "windows.hop=-1",
        "windows.width_px=161",
        "windows.max_cast=0",
        "windows.max_cast=256",
        "references.min_count=0",
        "references.max_count=2",
        "references.min_size_px=-1",
        "references.max_similarity=nan",
        "pack.samples_per_shard=0",
        "pack.shard_bytes=0",
        "pack.validation=0.95",
        "run.num_workers=-1",
        "run.max_attempts=0",
        "run.max_quarantined=1.01",
    ],
)
def test_a_value_out_of_bounds_is_named_with_what_is_allowed(override: str) -> None:
    key, _, value = override.partition("=")
    with pytest.raises(InputError, match=rf"^{key}: came {value}, allowed (is|are) .*"):
        load(PrepareConfig, None, [*PLACES, override])


def test_two_knobs_that_contradict_each_other() -> None:
    with pytest.raises(InputError, match=r"references\.max_similarity: came 0\.5, allowed is from 0\.6 to 1"):
        load(PrepareConfig, None, [*PLACES, "references.min_similarity=0.6", "references.max_similarity=0.5"])


def test_the_defaults_are_allowed() -> None:
    assert load(PrepareConfig, None, PLACES).windows.num_frames == 17
