"""Ids of characters: the one they had, or one made from their smallest track's id."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from data_prep.records import Character


def name_characters(
    groups: Sequence[tuple[str, ...]],
    voted: Mapping[str, str],
    known: Collection[str] = (),
    kept: Mapping[str, str] | None = None,
) -> tuple[Character, ...]:
    """Groups of track ids as characters, ordered by id; no two get the same, the larger claim on one wins.

    ``voted``: by track id, the id of the character that it belonged to; ``known``: ids that were somebody's and are
    given to nobody else; ``kept``: by track id, the id that its group has whatever others vote, one per group.
    """
    kept = kept or {}
    named = (
        (at, next((kept[track] for track in group if track in kept), "")) for at, group in enumerate(groups)
    )
    names = {at: name for at, name in named if name}
    taken = set(names.values())
    claims = []
    for at, group in enumerate(groups):
        votes = Counter(voted[track] for track in group if track in voted)
        claims += [(-count, at, name) for name, count in votes.items()]
    for _, at, name in sorted(claims):
        if at not in names and name not in taken:
            names[at] = name
            taken.add(name)
    taken |= set(known)
    for at, group in enumerate(groups):
        if at not in names:
            names[at] = fresh_name(min(group), taken)
            taken.add(names[at])
    return tuple(sorted((Character(names[at], group) for at, group in enumerate(groups)), key=lambda c: c.id))


def fresh_name(smallest_track_id: str, taken: Collection[str]) -> str:
    """``c`` and 8 hex digits of the sha256 of the track's id; later digits where those are taken."""
    digest = hashlib.sha256(smallest_track_id.encode()).hexdigest()
    return next(name for at in range(57) if (name := f"c{digest[at : at + 8]}") not in taken)
