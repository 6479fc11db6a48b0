"""Which sources are kept apart for validation, so that no source and no person is on both sides.

Sources that show the same person are joined, and whoever else they show joins theirs too: what is drawn is whole
connected groups. A source that is on one side stays there when clips are added, with one exception: where a person
turns out to be on both sides, their whole group is for training, for training has seen them already. People whom
linking could not tell to be one are two here; how often that happens is the calibration's false reject rate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping

from data_prep.records import InputError
from data_prep.shards import Split


def split_sources(
    num_samples: Mapping[str, int],
    people: Iterable[Collection[str]],
    share: float,
    before: Mapping[str, Split],
) -> dict[str, Split]:
    """On which side each source is.

    Args:
        num_samples: by source id, every source once.
        people: of each person the ids of the sources that show them.
        share: of the samples, in [0,1), that validation should have; groups come in an order drawn by hash, and one
            that would take it farther from this is for training.
        before: on which side a source was when its samples were packed.

    Raises:
        InputError: a share is asked for, and all samples are of one group.
    """
    if not share:
        return dict.fromkeys(num_samples, "train")
    wanted = share * sum(num_samples.values())
    sides: dict[str, Split] = {}
    free: list[tuple[str, ...]] = []
    kept = 0
    for group in sorted(joined(num_samples, people), key=_drawn):
        known = {before[source] for source in group if source in before}
        if known:
            side: Split = "train" if "train" in known else "validation"
            sides |= dict.fromkeys(group, side)
            kept += _size(group, num_samples) * (side == "validation")
        else:
            free.append(group)
    chosen: list[tuple[str, ...]] = []
    for group in free:
        if kept + _size(group, num_samples) / 2 <= wanted:
            chosen.append(group)
            kept += _size(group, num_samples)
    filled = [group for group in free if _size(group, num_samples)]
    if not kept and len(filled) + ("train" in sides.values()) > 1:
        chosen = [min(filled, key=lambda group: _size(group, num_samples))]
    for group in free:
        sides |= dict.fromkeys(group, "validation" if group in chosen else "train")
    _refuse_one_sided(sides, num_samples, share, before)
    return sides


def joined(sources: Iterable[str], people: Iterable[Collection[str]]) -> list[tuple[str, ...]]:
    """The sources in groups, each sorted, that share no person."""
    parent = {source: source for source in sources}

    def root(source: str) -> str:
        while parent[source] != source:
            parent[source] = parent[parent[source]]
            source = parent[source]
        return source

    for shown in people:
        first, *others = sorted(source for source in shown if source in parent) or [""]
        for other in others:
            parent[root(other)] = root(first)
    groups: dict[str, list[str]] = {}
    for source in sorted(parent):
        groups.setdefault(root(source), []).append(source)
    return [tuple(group) for group in groups.values()]


def _drawn(group: tuple[str, ...]) -> bytes:
    return hashlib.sha256(f"validation/{group[0]}".encode()).digest()


def _size(group: Collection[str], num_samples: Mapping[str, int]) -> int:
    return sum(num_samples[source] for source in group)


def _refuse_one_sided(
    sides: Mapping[str, Split], num_samples: Mapping[str, int], share: float, before: Mapping[str, Split]
) -> None:
    there = {side for source, side in sides.items() if num_samples[source]}
    if there and len(there) < 2:
        count = sum(1 for number in num_samples.values() if number)
        raise InputError(
            f"pack.validation={share:g}: {count} sources with samples hang together by the people they show, or "
            f"were for {min(there)} before, so that all would be; set it to 0, prepare clips of others"
            f"{' or take a new output' if before else ''} (what is analysed stays)"
        )
