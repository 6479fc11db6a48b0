"""What a result depends on, as hashes: the bytes of each clip's file, the knobs that analysis uses, all inputs.

They decide what a second ``prepare`` may skip, so they name contents and never paths or times: the same footage
in another folder gives the same shards. A file's hash is remembered by size and modification time, so that a
re-run reads no footage.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from data_prep.analysis_store import SCHEMA
from data_prep.atomic import write_atomic
from data_prep.config import PrepareConfig, QualityConfig
from data_prep.records import Clip, Decision, Json, Progress

RECIPE = 2  # raise it when linking, selecting or captions change, so that finished outputs are made again
REMEMBERED, MEMORIES = "files.json", "files*.json"  # of the whole preparation, and also of parts
SAVE_EVERY_S = 30.0  # of hashing that a kill may cost; a corpus of terabytes takes hours

_Remembered = list[int | str]  # size in bytes, modification time in ns, sha256
_PLACES = ("manifest", "clips", "output", "run")
_NOT_ANALYSIS = {
    "decode": ("timeout_s", "max_chunk_bytes"),
    "quality": tuple(f.name for f in fields(QualityConfig) if f.name != "text_detector"),
    "windows": ("max_cast", "min_visible", "min_face_px"),
    "link": ("threshold",),  # its min_norm says which embeddings a tracker may trust
    "references": ("min_count", "max_count", "guard_gap_s", "min_similarity", "max_similarity"),
}


@dataclass(frozen=True)
class PackFiles:
    """A face pack as far as results depend on it: its name and the sha256 of its files."""

    name: str
    files: Mapping[str, str]


def hash_files(paths: Sequence[Path], memory: Path, on_progress: Progress) -> dict[Path, str]:
    """sha256 of each file's bytes. ``memory``: the file that keeps size, time and hash of each; what the others of
    its folder remember, those of parts, counts too, and each writer has its own so that none is lost.

    Raises:
        OSError: a file cannot be read.
    """
    remembered = _recall(memory.parent)
    known: dict[str, _Remembered] = {}
    saved_s = time.monotonic()
    with ThreadPoolExecutor(
        len(os.sched_getaffinity(0))
    ) as threads:  # hashing releases the interpreter's lock
        hashing = [threads.submit(_hashed, path, remembered.get(str(path))) for path in paths]
        try:
            for path, entry in zip(paths, hashing, strict=True):
                known[str(path)] = entry.result()
                on_progress("fingerprint", len(known), len(paths))
                if time.monotonic() - saved_s > SAVE_EVERY_S:
                    write_atomic(memory, json.dumps(remembered | known).encode())
                    saved_s = time.monotonic()
        finally:  # stopped: what is not begun is not waited for
            threads.shutdown(wait=False, cancel_futures=True)
    write_atomic(memory, json.dumps(known).encode())
    return {path: str(known[str(path)][2]) for path in paths}


def _hashed(path: Path, before: _Remembered | None) -> _Remembered:
    status = path.stat()
    if before and before[:2] == [status.st_size, status.st_mtime_ns]:
        return before
    with path.open("rb") as stream:
        return [status.st_size, status.st_mtime_ns, hashlib.file_digest(stream, "sha256").hexdigest()]


def analysis_key(clip: Clip, file_sha256: str, config: PrepareConfig, pack: PackFiles) -> str:
    """16 hex digits for what ``analyse`` makes of a clip: its span, its file and the knobs of analysis."""
    knobs = asdict(config)
    for name in (*_PLACES, "pack"):
        del knobs[name]
    for section, names in _NOT_ANALYSIS.items():
        for name in names:
            del knobs[section][name]
    row = [clip.id, clip.start_s, clip.end_s, clip.fps, clip.width_px, clip.height_px]
    return digest({"schema": SCHEMA, "row": row, "file": file_sha256, "knobs": knobs, "pack": asdict(pack)})[
        :16
    ]


def inputs_sha256(
    keys: Mapping[str, str], clips: Sequence[Clip], ingest: Sequence[Decision], config: PrepareConfig
) -> str:
    """Fingerprint of everything that the shards are made from. ``keys``: analysis key by clip id; ``ingest``: the
    rows that gave no clip, of which only the fate counts."""
    knobs = asdict(config)
    for name in _PLACES:
        del knobs[name]
    for name in _NOT_ANALYSIS["decode"]:
        del knobs["decode"][name]
    rows = {clip.id: {**asdict(clip), "path": keys[clip.id]} for clip in clips}
    lost = sorted((decision.item, decision.fate, decision.rule) for decision in ingest)
    return digest({"recipe": RECIPE, "clips": rows, "lost": lost, "knobs": knobs})


def digest(value: Json | list[object]) -> str:
    """sha256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _recall(folder: Path) -> dict[str, _Remembered]:
    """What is remembered of each file, the latest state of it where several are; a memory that is damaged is worth
    nothing, the hashes are then made again."""
    found: dict[str, _Remembered] = {}
    for path in folder.glob(MEMORIES):
        try:
            loaded = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            continue
        for name, entry in (loaded if isinstance(loaded, dict) else {}).items():
            if name not in found or found[name][1] < entry[1]:
                found[name] = entry
    return found
