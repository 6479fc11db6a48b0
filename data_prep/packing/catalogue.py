"""What stands beside the shards: the ledger, the characters, the face embeddings, and the numbers of the corpus.

Embeddings are biometric data. They are in ``faces/tracks.npz`` and nowhere else, so that they can be deleted on
their own: no shard needs them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_prep import ledger
from data_prep.config import PrepareConfig
from data_prep.identity import calibration
from data_prep.identity.earlier import CHARACTERS, EMBEDDINGS
from data_prep.identity.identities import Linked, by_track
from data_prep.ledger import page as ledger_page
from data_prep.packing.lineage import packing
from data_prep.records import Character, Decision, Json
from data_prep.shards import IndexRow


def facts(
    linked: Linked, decisions: Sequence[Decision], rows: Sequence[IndexRow], config: PrepareConfig
) -> Json:
    """The numbers that the manifest carries for readers: counts, calibration and the limits in force."""
    clips = Counter(decision.fate for decision in decisions if decision.kind == "clip")
    return {
        "num_clips": sum(clips.values()),
        "num_clips_kept": clips["kept"],
        "num_quarantined": clips["quarantined"],
        "num_tracks": len(linked.tracks),
        "num_characters": len(linked.characters),
        "num_characters_in_samples": len({character for row in rows for character in row.cast}),
        "num_samples": len(rows),
        "num_samples_validation": sum(row.split == "validation" for row in rows),
        "packing": packing(config),
        "lost_by_rule": ledger.count_by_rule(decisions),
        "num_excluded": len(set(linked.excluded.values())),
        "num_alike": len(linked.alike),
        "calibration": calibration.as_json(linked.calibration),
        "limits": {
            "min_similarity": config.references.min_similarity,
            "max_similarity": config.references.max_similarity,
            "guard_gap_s": config.references.guard_gap_s,
            "min_face_px": config.windows.min_face_px,
        },
    }


def write(folder: Path, linked: Linked, decisions: Sequence[Decision], rows: Sequence[IndexRow]) -> None:
    """Write ledger, calibration, characters and embeddings into ``folder``; same content, same bytes."""
    ledger_page.write_both(folder, decisions)
    calibration.write(folder, linked.calibration)
    text = json.dumps(_characters(linked, rows), indent=1, ensure_ascii=False) + "\n"
    (folder / CHARACTERS).write_text(text, encoding="utf-8")
    (folder / EMBEDDINGS).parent.mkdir()
    character_of, linked_as = linked.character_of() | dict(linked.excluded), by_track(linked.linked)
    vectors = [track.embedding for track in linked.tracks]
    np.savez(
        folder / EMBEDDINGS,
        track_ids=np.array([track.id for track in linked.tracks], str),
        character_ids=np.array([character_of[track.id] for track in linked.tracks], str),
        linked_ids=np.array([linked_as[track.id] for track in linked.tracks], str),
        linked_with=np.array(linked.linked_with),
        source_ids=np.array([track.source_id for track in linked.tracks], str),
        embeddings=np.stack(vectors) if vectors else np.zeros((0, 0), np.float32),
    )


def _characters(linked: Linked, rows: Sequence[IndexRow]) -> list[Json]:
    """What characters.json says: of each its tracks, its sources, who it looks like, and what people decided."""
    counts = Counter(character for row in rows for character in row.cast)
    sources = {track.id: track.source_id for track in linked.tracks}
    linked_as = by_track(linked.linked)
    return [
        {
            "id": character.id,
            "num_samples": counts[character.id],
            "sources": sorted({sources[track] for track in character.track_ids}),
            "tracks": list(character.track_ids),
        }
        | _opinions(character, linked, linked_as)
        for character in linked.characters
    ] + [
        {"id": name, "excluded": True, "num_samples": 0, "tracks": tracks}
        | {"linked_as": {track: linked_as[track] for track in tracks if linked_as[track] != name}}
        for name, tracks in _excluded(linked)
    ]


def _opinions(character: Character, linked: Linked, linked_as: dict[str, str]) -> Json:
    """Only where there are any. linked_as: by track, whom linking took it for before the overrides; alike: whom it
    looks like, how much, and what keeps them apart."""
    before = {track: name for track in character.track_ids if (name := linked_as[track]) != character.id}
    ids = {linked_as[track] for track in character.track_ids}
    alike = [
        {"id": pair.other if pair.one in ids else pair.one, "cosine": pair.cosine, "why": pair.why}
        for pair in linked.alike
        if (pair.one in ids) != (pair.other in ids)
    ]
    return ({"linked_as": before} if before else {}) | ({"alike": alike} if alike else {})


def _excluded(linked: Linked) -> list[tuple[str, list[str]]]:
    tracks: dict[str, list[str]] = {}
    for track, name in sorted(linked.excluded.items()):
        tracks.setdefault(name, []).append(track)
    return sorted(tracks.items())


def known_characters(folder: Path) -> dict[str, str]:
    """Character id by track id of the generation that stands in ``folder``, without who was excluded; empty where
    there is none."""
    path = folder / CHARACTERS
    if not path.is_file():
        return {}
    characters = json.loads(path.read_text(encoding="utf-8"))
    kept = [character for character in characters if not character.get("excluded")]
    return {track: character["id"] for character in kept for track in character["tracks"]}
