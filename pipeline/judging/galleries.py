"""The reference faces that a video is compared with, and what they say of themselves before any video is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from data_prep.faces import embed_crops
from data_prep.faces.packs import known_pack
from data_prep.records import F32, F64, U8, InputError


@dataclass(frozen=True)
class Gallery:
    """The reference faces of some characters under one recogniser: unit rows f32[R,D] by name, R ≥ 1. crops: the
    same faces u8[R,112,112,3], aligned, by name, where there are pictures of them (a bank keeps none)."""

    pack: str
    faces: Mapping[str, F32]
    crops: Mapping[str, U8] = field(default_factory=dict, repr=False)

    def means(self, cast: Sequence[str]) -> F64:
        """The unit mean f64[N,D] of each member's references. Raises InputError for one without any."""
        means = []
        for name in cast:
            if name not in self.faces or len(self.faces[name]) == 0:
                raise InputError(f"--cast: no reference face of {name!r}; there are {', '.join(self.faces)}.")
            total = self.faces[name].astype(np.float64).sum(0)
            means.append(total / np.linalg.norm(total))
        return np.asarray(means, np.float64)

    def similarity(self, embeddings: F32, cast: Sequence[str]) -> F64:
        """Cosine f64[n,N] of n unit embeddings to the mean of each member's references."""
        return np.asarray(embeddings.astype(np.float64) @ self.means(cast).T)

    def ceiling(self, name: str) -> float:
        """The highest cosine that two references of one character reach; NaN where there is only one."""
        return _highest_pair(self.faces[name] @ self.faces[name].T)


def gallery(pack: str, crops: Mapping[str, U8]) -> Gallery:
    """Embed aligned reference crops u8[R,112,112,3] by character."""
    return Gallery(pack, {name: embed_crops(pack, faces)[0] for name, faces in crops.items()}, dict(crops))


def check_one_person_each(galleries: Sequence[Gallery]) -> None:
    """Raises InputError where the references of one character are those of two people under every recogniser: they
    fall into groups that no pair at or above the recogniser's same-person threshold joins."""
    for name in galleries[0].faces:
        splits = [_split(one, name) for one in galleries]
        if all(split is not None for split in splits):
            found = [(one, split) for one, split in zip(galleries, splits, strict=True) if split is not None]
            said = "; ".join(
                f"{one.pack} {split[2]:.2f}, the same person from {known_pack(one.pack).same_person:.2f}"
                for one, split in found
            )
            a, b, _ = found[0][1]
            raise InputError(
                f"--references: those of {name!r} show two people: the likest pair between reference {a + 1} and "
                f"the others' group, {b + 1}, reaches {said}; give each person an own name, or remove one."
            )


def namesakes(one: Gallery) -> list[tuple[str, str, float]]:
    """Pairs of characters whose mean references are one person by the recogniser's threshold, with the cosine."""
    names = list(one.faces)
    cosines = one.means(names) @ one.means(names).T
    limit = known_pack(one.pack).same_person
    return [
        (a, b, float(cosines[i, j]))
        for i, a in enumerate(names)
        for j, b in enumerate(names)
        if i < j and cosines[i, j] >= limit
    ]


def _split(one: Gallery, name: str) -> tuple[int, int, float] | None:
    """Where a character's references are not one group: a reference on either side and the likest pair's cosine."""
    from scipy.sparse.csgraph import connected_components

    if len(one.faces[name]) < 2:
        return None
    cosines = one.faces[name] @ one.faces[name].T
    num_groups, group = connected_components(cosines >= known_pack(one.pack).same_person, directed=False)
    if num_groups < 2:
        return None
    between = np.where(group[:, None] != group[None, :], cosines, -np.inf)
    a, b = (int(k) for k in np.unravel_index(int(between.argmax()), between.shape))
    return min(a, b), max(a, b), float(between[a, b])


def _highest_pair(cosines: F32) -> float:
    apart = ~np.eye(len(cosines), dtype=bool)
    return float(cosines[apart].max()) if apart.any() else float("nan")
