"""What a configuration leaves open comes from the face pack; what it says stays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from data_prep.analysis.limits import with_pack_limits
from data_prep.config import LinkConfig, PrepareConfig
from data_prep.faces.packs import PACKS


@pytest.mark.parametrize("pack", PACKS.values(), ids=lambda pack: pack.name)
def test_limits_are_the_packs_own(pack) -> None:
    config = with_pack_limits(PrepareConfig(manifest="m", output="o"), pack)
    assert (config.link.threshold, config.link.min_norm) == (pack.same_person, pack.min_norm)
    assert (config.references.min_score, config.references.min_norm) == (pack.min_score, pack.min_norm)
    assert config.references.min_similarity == config.tracks.min_cosine == pack.same_person
    assert with_pack_limits(config, pack) == config


def test_a_limit_that_was_given_stays() -> None:
    given = PrepareConfig(manifest="m", output="o", link=LinkConfig(threshold=0.55))
    config = with_pack_limits(given, replace(PACKS["embedded"], min_norm=3.5))
    assert (config.link.threshold, config.link.min_norm) == (0.55, 3.5)
