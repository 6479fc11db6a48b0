"""Which tracks are one person: an identity graph over all tracks, cut into characters.

Two faces seen in one frame are never one person, and neither are any two tracks whose clusters hold such a pair.
Under that constraint tracks are merged by average linkage of their mean embeddings, first within each source,
where light and make-up agree, then over the corpus. Average linkage and not single linkage, because one blurred
track between two people must not chain them together.

The average cosine between two clusters is the dot product of their mean vectors, so a cluster is kept as a sum
and a count. Clusters that are not connected by any pair at or above the threshold can never be merged (the
average of numbers below it stays below it), so each connected component is solved alone, exactly.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from data_prep.config import LinkConfig
from data_prep.records import F32, F64, AnalysedClip, Calibration, Character, Decision, FaceTrack

BLOCK_ROWS = 1024  # rows of the corpus similarity matrix in memory at once: 1024 x 100,000 f32 are 0.4 GB
ROUNDING = 1e-5  # of an f32 dot product; components may be too large by it, never too small
CALIBRATION_FACES = (
    8  # faces per track and end that calibration compares; all pairs would be quadratic in length
)


@dataclass(frozen=True)
class TrackFaces:
    """What linking keeps of a track: embedding f32[D] unit mean; early and late f32[<=8,D], unit rows from the
    first and the last third of its usable faces."""

    id: str
    source_id: str
    embedding: F32
    early: F32
    late: F32


@dataclass(frozen=True)
class Linked:
    """Characters ordered by id; must_not: pairs of track ids (smaller first) seen in one frame; tracks: what was
    linked, ordered by id; decisions: the tracks that could not be."""

    characters: tuple[Character, ...]
    calibration: Calibration
    must_not: tuple[tuple[str, str], ...]
    tracks: tuple[TrackFaces, ...]
    decisions: tuple[Decision, ...]

    def character_of(self) -> dict[str, str]:
        """Character id by track id."""
        return {track: character.id for character in self.characters for track in character.track_ids}


@dataclass(frozen=True)
class Clusters:
    """C clusters: sums f64[C,D] of their tracks' unit embeddings, sizes f64[C], members track positions."""

    sums: F64
    sizes: F64
    members: tuple[tuple[int, ...], ...]

    def take(self, at: npt.NDArray[np.int64]) -> Clusters:
        """The clusters at these positions."""
        return Clusters(self.sums[at], self.sizes[at], tuple(self.members[i] for i in at))

    @property
    def means(self) -> F64:
        """f64[C,D]; the dot product of two rows is the average cosine between two clusters."""
        return np.asarray(self.sums / self.sizes[:, None])


def link(
    clips: Iterable[AnalysedClip], config: LinkConfig, pack: str, known: Mapping[str, str] | None = None
) -> Linked:
    """Characters of a corpus. Clips are taken one at a time and let go, in any order: the answer is the same.

    ``config`` as it stands, with the pack's limits in it (``data_prep.limits``); ``pack``: the name to report.
    ``known`` maps track ids to the character ids of an earlier run: a character keeps the id that most of its
    tracks had. Without it a character is named ``c`` + 8 hex digits of the sha256 of its smallest track id.
    """
    found: list[TrackFaces] = []
    must_not: list[tuple[str, str]] = []
    decisions: list[Decision] = []
    for clip in clips:
        for track in clip.tracks:
            faces = track_faces(track, clip.clip.source_id, config.min_norm)
            if faces is None:
                longest = float(track.norms.max(initial=0.0))
                decisions.append(_unusable(track.id, longest, config.min_norm))
            else:
                found.append(faces)
        must_not += co_visible(clip.tracks)
    tracks = tuple(sorted(found, key=lambda track: track.id))
    pairs = tuple(sorted(must_not))
    groups = cluster(tracks, pairs, config.threshold)
    return Linked(
        characters=name_characters(groups, known or {}),
        calibration=calibrate(tracks, pairs, pack, config.threshold),
        must_not=pairs,
        tracks=tracks,
        decisions=tuple(sorted(decisions, key=lambda decision: decision.item)),
    )


def track_faces(track: FaceTrack, source_id: str, min_norm: float) -> TrackFaces | None:
    """The usable faces of a track (embedding at least ``min_norm`` long), or None where it has none."""
    usable = np.flatnonzero(track.embedded & (track.norms >= min_norm))
    if not len(usable):
        return None
    total = (track.embeddings[usable] * track.norms[usable, None]).sum(0, dtype=np.float64)
    third = max(1, len(usable) // 3)
    return TrackFaces(
        id=track.id,
        source_id=source_id,
        embedding=np.asarray(total / max(float(np.linalg.norm(total)), 1e-9), np.float32),
        early=track.embeddings[usable[:third][:CALIBRATION_FACES]],
        late=track.embeddings[usable[-third:][-CALIBRATION_FACES:]],
    )


def co_visible(tracks: Sequence[FaceTrack]) -> list[tuple[str, str]]:
    """Pairs of one clip's tracks, smaller id first, that share at least one frame."""
    pairs = []
    for at, one in enumerate(tracks):
        for other in tracks[at + 1 :]:
            if len(np.intersect1d(one.frames, other.frames, assume_unique=True)):
                pairs.append((min(one.id, other.id), max(one.id, other.id)))
    return pairs


def cluster(
    tracks: Sequence[TrackFaces], must_not: Sequence[tuple[str, str]], threshold: float
) -> list[tuple[str, ...]]:
    """Track ids by person, each sorted, in the order of their smallest. ``tracks`` are ordered by id."""
    if not tracks:
        return []
    apart = _apart(tracks, must_not)
    vectors = np.stack([track.embedding for track in tracks]).astype(np.float64)
    sources: dict[str, list[int]] = {}
    for at, track in enumerate(tracks):
        sources.setdefault(track.source_id, []).append(at)
    groups: list[tuple[int, ...]] = []
    for _, members in sorted(sources.items()):
        groups += _merge(_clusters_of(vectors, [(at,) for at in members]), apart, threshold)
    groups = _merge(_clusters_of(vectors, sorted(groups)), apart, threshold)
    return [tuple(tracks[at].id for at in sorted(group)) for group in sorted(groups, key=min)]


def name_characters(groups: Sequence[tuple[str, ...]], known: Mapping[str, str]) -> tuple[Character, ...]:
    """Groups as characters, ordered by id; no two get the same id, the larger claim on a known one wins."""
    claims = []
    for at, group in enumerate(groups):
        votes = Counter(known[track] for track in group if track in known)
        claims += [(-count, at, name) for name, count in votes.items()]
    names: dict[int, str] = {}
    taken: set[str] = set()
    for _, at, name in sorted(claims):
        if at not in names and name not in taken:
            names[at] = name
            taken.add(name)
    for at, group in enumerate(groups):
        if at not in names:
            names[at] = _fresh_name(min(group), taken)
            taken.add(names[at])
    return tuple(sorted((Character(names[at], group) for at, group in enumerate(groups)), key=lambda c: c.id))


def calibrate(
    tracks: Sequence[TrackFaces], must_not: Sequence[tuple[str, str]], pack: str, threshold: float
) -> Calibration:
    """The error rates of the threshold on this corpus, face against face.

    Positive pairs: the first against the last third of one track (nobody changes within a shot). Negative pairs:
    faces of two tracks that were seen in one frame.
    """
    by_id = {track.id: track for track in tracks}
    positive = [(track.early @ track.late.T).ravel() for track in tracks if len(track.early) > 1]
    negative = [(by_id[a].early @ by_id[b].late.T).ravel() for a, b in must_not if a in by_id and b in by_id]
    same = np.concatenate([np.zeros(0, np.float32), *positive])
    different = np.concatenate([np.zeros(0, np.float32), *negative])
    return Calibration(
        pack=pack,
        threshold=threshold,
        false_accept=float((different >= threshold).mean()) if len(different) else float("nan"),
        false_reject=float((same < threshold).mean()) if len(same) else float("nan"),
        num_positive=len(same),
        num_negative=len(different),
    )


def _clusters_of(vectors: F64, groups: Sequence[tuple[int, ...]]) -> Clusters:
    sums = np.stack([vectors[list(group)].sum(0) for group in groups])
    return Clusters(sums, np.array([len(group) for group in groups], np.float64), tuple(groups))


def _merge(clusters: Clusters, apart: dict[int, set[int]], threshold: float) -> list[tuple[int, ...]]:
    """Average linkage under cannot-link, one connected component at a time."""
    groups: list[tuple[int, ...]] = []
    labels = _components(clusters.means, threshold)
    order = np.argsort(labels, kind="stable")
    for component in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        part = clusters.take(component)
        groups += _merge_component(part, _forbidden(part.members, apart), threshold)
    return groups


def _components(means: F64, threshold: float) -> npt.NDArray[np.int64]:
    """int64[C] component of each cluster in the graph of pairs at or above the threshold."""
    rows, columns = [], []
    rough = means.astype(np.float32)
    for start in range(0, len(rough), BLOCK_ROWS):
        near = np.argwhere(rough[start : start + BLOCK_ROWS] @ rough.T >= threshold - ROUNDING)
        rows.append(near[:, 0] + start)
        columns.append(near[:, 1])
    row, column = np.concatenate(rows), np.concatenate(columns)
    graph = coo_array((np.ones(len(row), np.int8), (row, column)), shape=(len(means), len(means)))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _apart(tracks: Sequence[TrackFaces], must_not: Sequence[tuple[str, str]]) -> dict[int, set[int]]:
    """By position of a track: the positions of the tracks that are another person."""
    place = {track.id: at for at, track in enumerate(tracks)}
    apart: dict[int, set[int]] = {}
    for one, other in must_not:
        if one in place and other in place:
            apart.setdefault(place[one], set()).add(place[other])
            apart.setdefault(place[other], set()).add(place[one])
    return apart


def _forbidden(members: Sequence[tuple[int, ...]], apart: dict[int, set[int]]) -> npt.NDArray[np.bool_]:
    """bool[C,C], True where two clusters hold tracks that were seen together."""
    owner = {track: at for at, group in enumerate(members) for track in group}
    forbidden = np.zeros((len(members), len(members)), bool)
    for track, at in owner.items():
        for other in apart.get(track, set()) & owner.keys():
            forbidden[at, owner[other]] = True
    return forbidden


def _merge_component(
    clusters: Clusters, forbidden: npt.NDArray[np.bool_], threshold: float
) -> list[tuple[int, ...]]:
    """Merges the most similar allowed pair until none reaches the threshold. O(n^2) per merge for n clusters."""
    sums, sizes, members = clusters.sums.copy(), clusters.sizes.copy(), list(clusters.members)
    similarity = clusters.means @ clusters.means.T
    similarity[forbidden | np.eye(len(members), dtype=bool)] = -np.inf
    while True:
        one, other = sorted(np.unravel_index(int(np.argmax(similarity)), similarity.shape))
        if similarity[one, other] < threshold:
            return [group for group in members if group]
        sums[one] += sums[other]
        sizes[one] += sizes[other]
        members[one], members[other] = members[one] + members[other], ()
        blocked = np.isneginf(similarity[one]) | np.isneginf(similarity[other])
        row = (sums / sizes[:, None]) @ (sums[one] / sizes[one])
        row[blocked] = -np.inf
        similarity[one], similarity[:, one] = row, row
        similarity[other], similarity[:, other] = -np.inf, -np.inf


def _fresh_name(smallest_track_id: str, taken: set[str]) -> str:
    digest = hashlib.sha256(smallest_track_id.encode()).hexdigest()
    return next(name for at in range(57) if (name := f"c{digest[at : at + 8]}") not in taken)


def _unusable(track_id: str, longest: float, min_norm: float) -> Decision:
    return Decision(
        item=track_id,
        kind="track",
        fate="dropped",
        stage="link",
        rule="no_usable_face",
        value=f"{longest:.2f}",
        limit=f">= {min_norm:g}",
        detail="every embedding is too short: the face is covered, cut or blurred",
    )
