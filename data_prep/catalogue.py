"""What stands beside the shards: the ledger, the characters, the face embeddings, and the numbers of the corpus.

Embeddings are biometric data. They are in ``faces/tracks.npz`` and nowhere else, so that they can be deleted on
their own: no shard needs them.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from data_prep import ledger
from data_prep.config import PrepareConfig
from data_prep.identities import Linked
from data_prep.lineage import packing
from data_prep.records import Decision, Json
from data_prep.shards import IndexRow

CHARACTERS = "characters.json"
EMBEDDINGS = Path("faces") / "tracks.npz"


def facts(
    linked: Linked, decisions: Sequence[Decision], rows: Sequence[IndexRow], config: PrepareConfig
) -> Json:
    """The numbers that the manifest carries for readers: counts, calibration and the limits in force."""
    clips = Counter(decision.fate for decision in decisions if decision.kind == "clip")
    calibration = {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in asdict(linked.calibration).items()
    }
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
        "calibration": calibration,
        "limits": {
            "min_similarity": config.references.min_similarity,
            "max_similarity": config.references.max_similarity,
            "guard_gap_s": config.references.guard_gap_s,
            "min_face_px": config.windows.min_face_px,
        },
    }


def write(folder: Path, linked: Linked, decisions: Sequence[Decision], rows: Sequence[IndexRow]) -> None:
    """Write ledger, characters and embeddings into ``folder``; same content, same bytes."""
    ledger.write(folder / ledger.LEDGER, decisions)
    counts = Counter(character for row in rows for character in row.cast)
    sources = {track.id: track.source_id for track in linked.tracks}
    characters = [
        {
            "id": character.id,
            "num_samples": counts[character.id],
            "sources": sorted({sources[track] for track in character.track_ids}),
            "tracks": list(character.track_ids),
        }
        for character in linked.characters
    ]
    text = json.dumps(characters, indent=1, ensure_ascii=False) + "\n"
    (folder / CHARACTERS).write_text(text, encoding="utf-8")
    (folder / EMBEDDINGS).parent.mkdir()
    character_of = linked.character_of()
    width = len(linked.tracks[0].embedding) if linked.tracks else 0
    vectors = [track.embedding for track in linked.tracks]
    np.savez(
        folder / EMBEDDINGS,
        track_ids=np.array([track.id for track in linked.tracks], str),
        character_ids=np.array([character_of[track.id] for track in linked.tracks], str),
        source_ids=np.array([track.source_id for track in linked.tracks], str),
        embeddings=np.stack(vectors) if vectors else np.zeros((0, width), np.float32),
    )


def known_characters(folder: Path) -> dict[str, str]:
    """Character id by track id of the generation that stands in ``folder``; empty where there is none."""
    path = folder / CHARACTERS
    if not path.is_file():
        return {}
    characters = json.loads(path.read_text(encoding="utf-8"))
    return {track: character["id"] for character in characters for track in character["tracks"]}
