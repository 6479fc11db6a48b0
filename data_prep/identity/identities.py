"""Which tracks are one person: an identity graph over all tracks, cut into characters.

Two faces seen in one frame are never one person, and neither are any two tracks whose clusters hold such a pair.
Under that constraint tracks are merged by average linkage of their mean embeddings, first within each source,
where light and make-up agree, then over the corpus, where the threshold is higher
(``data_prep.identity.calibration``). Average linkage and not single linkage, because one blurred track between two
people must not chain them together.

Characters of an earlier run are where this one starts: new tracks join them or found new ones, and nobody's id
changes because somebody else was added.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_prep.config import LinkConfig
from data_prep.identity.calibration import Observed, chance_threshold
from data_prep.identity.earlier import Earlier, settings
from data_prep.identity.linkage import Groups, average_linkage
from data_prep.identity.naming import name_characters
from data_prep.identity.neighbours import neighbours
from data_prep.identity.overrides import Overrides, apply
from data_prep.records import F32, AnalysedClip, Calibration, Character, Decision, FaceTrack

Apart = dict[int, set[int]]


@dataclass(frozen=True)
class TrackFaces:
    """What linking keeps of a track: embedding f32[D], the unit mean of its usable faces."""

    id: str
    source_id: str
    embedding: F32


@dataclass(frozen=True)
class Alike:
    """Two characters whose average cosine reaches the threshold and who stay two all the same; why: ``seen
    together``, ``earlier run`` or ``between sources`` (below the threshold that holds there)."""

    one: str
    other: str
    cosine: float
    why: str


@dataclass(frozen=True)
class Linked:
    """Characters ordered by id, as people want them: after the overrides; excluded ones are not among them.

    linked: the same before the overrides, whose ids those refer to; excluded: their tracks' characters by track id;
    must_not: pairs of track ids (smaller first) seen in one frame; tracks: what was linked, ordered by id; alike:
    of ``linked``, the most similar first; decisions: the tracks that could not be linked or were excluded;
    linked_with: the settings that the next run must have for characters to stay.
    """

    characters: tuple[Character, ...]
    linked: tuple[Character, ...]
    excluded: Mapping[str, str]
    calibration: Calibration
    must_not: tuple[tuple[str, str], ...]
    tracks: tuple[TrackFaces, ...]
    alike: tuple[Alike, ...]
    decisions: tuple[Decision, ...]
    linked_with: str

    def character_of(self) -> dict[str, str]:
        """Character id by track id."""
        return by_track(self.characters)


@dataclass(frozen=True)
class _Corpus:
    """All tracks, ordered by id, with their embeddings as f32[N,D]; apart: by place, who is another person."""

    tracks: tuple[TrackFaces, ...]
    vectors: F32
    must_not: tuple[tuple[str, str], ...]
    apart: Apart


def link(
    clips: Iterable[AnalysedClip],
    config: LinkConfig,
    pack: str,
    earlier: Earlier | None = None,
    overrides: Overrides | None = None,
) -> Linked:
    """Characters of a corpus. Clips are taken one at a time and let go, in any order: the answer is the same.

    ``config`` as it stands, with the pack's limits in it (``data_prep.analysis.limits``); ``pack``: the name to
    report. With what an ``earlier`` run found, a character keeps its id; without it, it is named ``c`` + 8 hex
    digits of the sha256 of its smallest track id.

    Raises:
        InputError: an override names somebody who is not there, or contradicts itself.
    """
    observed = Observed()
    corpus, decisions = _gathered(clips, config, observed)
    earlier = earlier or Earlier()
    threshold = observed.raised(config.threshold, config)
    kept = earlier.kept({t.id: t.embedding for t in corpus.tracks}, config, pack)
    groups, between = _clustered(corpus, threshold, config.max_chance, kept)
    voted = earlier.voted({t.id: t.embedding for t in corpus.tracks}, config.threshold)
    people = [tuple(corpus.tracks[at].id for at in group) for group in groups]
    linked = name_characters(people, voted, set(earlier.ids.values()), kept)
    applied = apply(linked, overrides or Overrides(), corpus.must_not)
    decisions += [_excluded(track, name) for track, name in sorted(applied.excluded.items())]
    return Linked(
        characters=applied.characters,
        linked=linked,
        excluded=applied.excluded,
        calibration=observed.measured(pack, config.threshold, threshold, between),
        must_not=corpus.must_not,
        tracks=corpus.tracks,
        alike=_alike(corpus, linked, threshold, between),
        decisions=tuple(sorted(decisions, key=lambda decision: decision.item)),
        linked_with=settings(config, pack),
    )


def cluster(
    tracks: Sequence[TrackFaces],
    must_not: Sequence[tuple[str, str]],
    threshold: float,
    max_chance: float = 1.0,
) -> list[tuple[str, ...]]:
    """Track ids by person, each sorted, in the order of their smallest; ``max_chance`` as in LinkConfig."""
    ordered = tuple(sorted(tracks, key=lambda track: track.id))
    groups, _ = _clustered(_corpus(ordered, must_not), threshold, max_chance, {})
    return [tuple(ordered[at].id for at in group) for group in groups]


def track_faces(track: FaceTrack, source_id: str, min_norm: float) -> TrackFaces | None:
    """The usable faces of a track (embedding at least ``min_norm`` long), or None where it has none."""
    usable = np.flatnonzero(track.embedded & (track.norms >= min_norm))
    if not len(usable):
        return None
    total = (track.embeddings[usable] * track.norms[usable, None]).sum(0, dtype=np.float64)
    embedding = np.asarray(total / max(float(np.linalg.norm(total)), 1e-9), np.float32)
    return TrackFaces(track.id, source_id, embedding)


def co_visible(tracks: Sequence[FaceTrack]) -> list[tuple[str, str]]:
    """Pairs of one clip's tracks, smaller id first, that share at least one frame."""
    pairs = []
    for at, one in enumerate(tracks):
        for other in tracks[at + 1 :]:
            if len(np.intersect1d(one.frames, other.frames, assume_unique=True)):
                pairs.append((min(one.id, other.id), max(one.id, other.id)))
    return pairs


def by_track(characters: Iterable[Character]) -> dict[str, str]:
    """Character id by track id."""
    return {track: character.id for character in characters for track in character.track_ids}


def _gathered(
    clips: Iterable[AnalysedClip], config: LinkConfig, observed: Observed
) -> tuple[_Corpus, list[Decision]]:
    """What linking needs of every clip; faces are only counted, into ``observed``."""
    found: list[TrackFaces] = []
    must_not: list[tuple[str, str]] = []
    decisions: list[Decision] = []
    for clip in clips:
        seen_together = co_visible(clip.tracks)
        observed.add(clip.tracks, seen_together, config.min_norm)
        must_not += seen_together
        for track in clip.tracks:
            faces = track_faces(track, clip.clip.source_id, config.min_norm)
            if faces is None:
                longest = float(track.norms.max(initial=0.0))
                decisions.append(_unusable(track.id, longest, config.min_norm))
            else:
                found.append(faces)
    return _corpus(tuple(sorted(found, key=lambda track: track.id)), sorted(must_not)), decisions


def _corpus(tracks: tuple[TrackFaces, ...], must_not: Sequence[tuple[str, str]]) -> _Corpus:
    place = {track.id: at for at, track in enumerate(tracks)}
    apart: Apart = {}
    for one, other in must_not:
        if one in place and other in place:
            apart.setdefault(place[one], set()).add(place[other])
            apart.setdefault(place[other], set()).add(place[one])
    vectors = np.stack([track.embedding for track in tracks]) if tracks else np.zeros((0, 1), np.float32)
    return _Corpus(tracks, vectors, tuple(must_not), apart)


def _clustered(
    corpus: _Corpus, threshold: float, max_chance: float, kept: Mapping[str, str]
) -> tuple[Groups, float]:
    """Places by person, each sorted, in the order of their smallest, and the threshold between sources.

    ``kept``: by track id, the character that it belongs to and stays with.
    """
    sources: dict[str, list[int]] = defaultdict(list)
    for at, track in enumerate(corpus.tracks):
        sources[track.source_id].append(at)
    groups: Groups = []
    origins: list[str] = []
    for source, places in sorted(sources.items()):
        given, names = _given(corpus, [(at,) for at in places], kept)
        within = average_linkage(corpus.vectors, given, corpus.apart, threshold, [bool(n) for n in names])
        groups += within
        origins += [source] * len(within)
    between = chance_threshold(_means(corpus, groups), origins, threshold, max_chance)
    given, names = _given(corpus, groups, kept)
    groups = average_linkage(corpus.vectors, given, corpus.apart, between, [bool(n) for n in names])
    return sorted((tuple(sorted(group)) for group in groups), key=min), between


def _given(
    corpus: _Corpus, groups: Sequence[tuple[int, ...]], kept: Mapping[str, str]
) -> tuple[Groups, list[str]]:
    """The groups, those of one kept character put together, and which that is ('' for the others)."""
    together: dict[str, tuple[int, ...]] = {}
    others: Groups = []
    for group in groups:
        name = next((kept[corpus.tracks[at].id] for at in group if corpus.tracks[at].id in kept), "")
        if name:
            together[name] = together.get(name, ()) + group
        else:
            others.append(group)
    given = sorted([*((min(g), g, name) for name, g in together.items()), *((min(g), g, "") for g in others)])
    return [group for _, group, _ in given], [name for _, _, name in given]


def _means(corpus: _Corpus, groups: Sequence[Sequence[int]]) -> F32:
    """f32[C,D] mean embedding of groups of places."""
    means = np.zeros((len(groups), corpus.vectors.shape[1]), np.float32)
    for at, group in enumerate(groups):
        means[at] = corpus.vectors[list(group)].mean(0)
    return means


def _alike(
    corpus: _Corpus, linked: Sequence[Character], threshold: float, between: float
) -> tuple[Alike, ...]:
    """Pairs of characters whom only a rule keeps apart: for people to look at."""
    place = {track.id: at for at, track in enumerate(corpus.tracks)}
    rows = [[place[track] for track in character.track_ids] for character in linked]
    owner = {at: number for number, group in enumerate(rows) for at in group}
    means = _means(corpus, rows)
    found = neighbours(means, threshold)
    alike = []
    for one, other in zip(found.first.tolist(), found.second.tolist(), strict=True):
        cosine = float(means[one] @ means[other])
        enemies = {owner[enemy] for at in rows[one] for enemy in corpus.apart.get(at, ())}
        why = (
            "seen together" if other in enemies else "earlier run" if cosine >= between else "between sources"
        )
        if cosine >= threshold:
            alike.append(Alike(linked[one].id, linked[other].id, round(cosine, 3), why))
    return tuple(sorted(alike, key=lambda pair: (-pair.cosine, pair.one, pair.other)))


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


def _excluded(track_id: str, character_id: str) -> Decision:
    return Decision(
        item=track_id,
        kind="track",
        fate="dropped",
        stage="link",
        rule="excluded_character",
        value=character_id,
        limit="not in link.overrides",
    )
