"""Limits that only hold for one recogniser or detector: they travel with its face pack, and are filled in here."""

from __future__ import annotations

from dataclasses import replace

from data_prep.config import PrepareConfig
from data_prep.faces.packs import PackSpec


def with_pack_limits(config: PrepareConfig, pack: PackSpec) -> PrepareConfig:
    """The configuration with every limit that it leaves at 0 taken from the pack; done twice, nothing changes."""
    link, tracks, references = config.link, config.tracks, config.references
    return replace(
        config,
        tracks=replace(tracks, min_cosine=tracks.min_cosine or pack.same_person),
        link=replace(
            link, threshold=link.threshold or pack.same_person, min_norm=link.min_norm or pack.min_norm
        ),
        references=replace(
            references,
            min_score=references.min_score or pack.min_score,
            min_norm=references.min_norm or pack.min_norm,
            min_similarity=references.min_similarity or pack.same_person,
        ),
    )
