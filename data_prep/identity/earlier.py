"""What an earlier run found: which track was whom, so that characters keep their ids.

Every generation of shards leaves it in ``faces/tracks.npz``, with the settings it was linked with. A track is still
the same track where its embedding is; a clip whose file was replaced has tracks of the same names that show
somebody else, and those inherit nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_prep.config import LinkConfig
from data_prep.records import F32

CHARACTERS = "characters.json"
EMBEDDINGS = Path("faces") / "tracks.npz"
SAME_TRACK = 0.999  # cosine of a track's mean with what it was: f32 differs by 1e-6, another analysis by more
METHOD = 1  # raise it when linking changes so much that its characters are not to be kept


@dataclass(frozen=True)
class Earlier:
    """ids: by track id, the character it was linked to, before overrides; rows: its row in embeddings f32[N,D],
    absent where those were deleted; linked_with: ``settings`` of that run, '' where unknown."""

    ids: Mapping[str, str] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    embeddings: F32 = field(default_factory=lambda: np.zeros((0, 0), np.float32), repr=False)
    linked_with: str = ""

    def kept(self, now: Mapping[str, F32], config: LinkConfig, pack: str) -> dict[str, str]:
        """Character id by track id of what is to stay as it is. now: this run's embedding by track id."""
        if not config.keep_characters or self.linked_with != settings(config, pack):
            return {}
        cosines = self._cosines(now)
        return {t: name for t, name in self.ids.items() if t in now and cosines.get(t, -1.0) >= SAME_TRACK}

    def voted(self, now: Mapping[str, F32], threshold: float) -> dict[str, str]:
        """Character id by track id, of tracks that still show a face like the one they showed."""
        cosines = self._cosines(now)
        return {t: name for t, name in self.ids.items() if t in now and cosines.get(t, 1.0) >= threshold}

    def _cosines(self, now: Mapping[str, F32]) -> dict[str, float]:
        """Where both are known, and of one pack."""
        return {
            track: float(self.embeddings[row] @ now[track])
            for track, row in self.rows.items()
            if track in now and len(now[track]) == self.embeddings.shape[1]
        }


def settings(config: LinkConfig, pack: str) -> str:
    """12 hex digits for all that decides who is whom beside the faces themselves."""
    knobs = [METHOD, pack, config.threshold, config.min_norm, config.max_chance]
    knobs += [config.max_false_accept, config.max_false_reject]
    return hashlib.sha256(json.dumps(knobs).encode()).hexdigest()[:12]


def read_earlier(folder: Path) -> Earlier:
    """Of the generation that stands in ``folder``; nothing where there is none. Where its ``faces/`` were deleted,
    ids are still known by track, and kept by vote."""
    if (folder / EMBEDDINGS).is_file():
        with np.load(folder / EMBEDDINGS, allow_pickle=False) as stored:
            if "linked_ids" in stored:
                tracks = stored["track_ids"].tolist()
                return Earlier(
                    ids=dict(zip(tracks, stored["linked_ids"].tolist(), strict=True)),
                    rows={track: row for row, track in enumerate(tracks)},
                    embeddings=stored["embeddings"],
                    linked_with=str(stored["linked_with"]),
                )
    if not (folder / CHARACTERS).is_file():
        return Earlier()
    characters = json.loads((folder / CHARACTERS).read_text(encoding="utf-8"))
    return Earlier({t: c.get("linked_as", {}).get(t, c["id"]) for c in characters for t in c["tracks"]})
