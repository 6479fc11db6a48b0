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

from data_prep.analysis.store import SCHEMA
from data_prep.atomic import write_atomic
from data_prep.config import PrepareConfig, QualityConfig
from data_prep.decode import decoder_versions
from data_prep.ingest.address import Address
from data_prep.ingest.archives import DamagedError, opened
from data_prep.ingest.storage import Storage
from data_prep.records import Clip, Decision, Json, Progress, digest

RECIPE = 3  # raise it when linking, selecting or captions change, so that finished outputs are made again
CAPTION_RECIPE = 1  # raise it when what a captioner is asked, or what is made of its answer, changes
REMEMBERED, MEMORIES = "files.json", "files*.json"  # of the whole preparation, and also of parts
SAVE_EVERY_S = 30.0  # of hashing that a kill may cost; a corpus of terabytes takes hours

_Remembered = list[int | str]  # size in bytes, stamp (of a path: modification time in ns), sha256
_PLACES = ("manifest", "clips", "output", "ingest", "run", "tracking")
_NOT_ANALYSIS = {
    "decode": ("timeout_s",),  # the size of chunks decides who reads
    "quality": tuple(f.name for f in fields(QualityConfig) if f.name != "text_detector"),
    "windows": ("max_cast", "min_visible", "min_face_px"),
    "link": (  # its min_norm says which embeddings a tracker may trust
        *("threshold", "max_false_accept", "max_false_reject", "max_chance", "keep_characters", "overrides"),
    ),
    "references": (
        "min_count",
        "max_count",
        "guard_gap_s",
        "min_size_px",
        "min_similarity",
        "max_similarity",
    ),
}


@dataclass(frozen=True)
class PackFiles:
    """A face pack as far as results depend on it: its name and the sha256 of its files."""

    name: str
    files: Mapping[str, str]


def hash_files(
    storage: Storage, addresses: Sequence[str], memory: Path, on_progress: Progress
) -> dict[str, str]:
    """sha256 of the bytes of each file, or member of an archive. ``memory``: the file that keeps size, stamp and
    hash of each; what the others of its folder remember, those of parts, counts too, and each writer has its own so
    that none is lost.

    Raises:
        OSError: a file cannot be read.
        StorageError: a store does not give one.
    """
    remembered = _recall(memory.parent)
    known: dict[str, _Remembered] = {}
    if addresses:
        on_progress("fingerprint", 0, len(addresses))
    saved_s = time.monotonic()
    with ThreadPoolExecutor(
        len(os.sched_getaffinity(0))
    ) as threads:  # hashing releases the interpreter's lock
        hashing = [threads.submit(_hashed, storage, place, remembered.get(place)) for place in addresses]
        try:
            for place, entry in zip(addresses, hashing, strict=True):
                known[place] = entry.result()
                on_progress("fingerprint", len(known), len(addresses))
                if time.monotonic() - saved_s > SAVE_EVERY_S:
                    write_atomic(memory, json.dumps(remembered | known).encode())
                    saved_s = time.monotonic()
        finally:  # stopped: what is not begun is not waited for
            threads.shutdown(wait=False, cancel_futures=True)
    write_atomic(memory, json.dumps(known).encode())
    return {place: str(known[place][2]) for place in addresses}


def _hashed(storage: Storage, place: str, before: _Remembered | None) -> _Remembered:
    address = Address.parse(place)
    status = storage.stat(address.place)
    if before and before[:2] == [status.num_bytes, status.stamp]:
        return before
    content = hashlib.sha256()
    try:
        with opened(storage, address) as parts:
            for part in parts:
                content.update(part)
    except DamagedError as error:  # whoever unpacks it meets the same, and says so in the ledger
        content.update(str(error).encode())
    return [status.num_bytes, status.stamp, content.hexdigest()]


def analysis_key(clip: Clip, file_sha256: str, config: PrepareConfig, pack: PackFiles) -> str:
    """16 hex digits for what ``analyse`` makes of a clip: its span, its file and the knobs of analysis."""
    knobs = asdict(config)
    for name in (*_PLACES, "captions", "pack", "masks"):
        del knobs[name]
    for section, names in _NOT_ANALYSIS.items():
        for name in names:
            del knobs[section][name]
    row = [clip.id, clip.start_s, clip.end_s, clip.fps, clip.width_px, clip.height_px]
    made_by = {"schema": SCHEMA, "decoders": decoder_versions(), "pack": asdict(pack)}
    return digest({**made_by, "row": row, "file": file_sha256, "knobs": knobs})[:16]


def inputs_sha256(
    keys: Mapping[str, str],
    clips: Sequence[Clip],
    ingest: Sequence[Decision],
    config: PrepareConfig,
    overrides: Json | None = None,
) -> str:
    """Fingerprint of everything that the shards are made from. ``keys``: analysis key by clip id; ``ingest``: the
    rows that gave no clip, of which only the fate counts; ``overrides``: what the file says, wherever it lies."""
    knobs = result_knobs(config)
    if config.captions.url:  # whoever answers for the model, and at what price
        knobs["captions"] = [CAPTION_RECIPE, config.captions.model]
    rows = {clip.id: {**asdict(clip), "path": keys[clip.id]} for clip in clips}
    for row in rows.values():
        del row["content_id"]  # the key holds it
    lost = sorted((decision.item, decision.fate, decision.rule) for decision in ingest)
    return digest(
        {"recipe": RECIPE, "clips": rows, "lost": lost, "knobs": knobs, "overrides": overrides or {}}
    )


def result_knobs(config: PrepareConfig) -> Json:
    """The knobs that shards depend on, but for captions and overrides, whose words count."""
    knobs = asdict(config)
    for name in (*_PLACES, "captions"):
        del knobs[name]
    for name in _NOT_ANALYSIS["decode"]:
        del knobs["decode"][name]
    del knobs["link"]["overrides"]
    return knobs


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
            if isinstance(entry[1], int):  # of an older memory
                entry[1] = f"{entry[1]:020d}"
            if name not in found or str(found[name][1]) < str(entry[1]):
                found[name] = entry
    return found
