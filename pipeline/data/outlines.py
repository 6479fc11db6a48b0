"""What must be known of every sample before one is read: its size and whether it may be mirrored.

The shards' index does not say, so it is read from each sample's first and last member, once, and kept beside the
shards under the index's hash.
"""

from __future__ import annotations

import json
import tarfile
import uuid
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.records import Progress
from data_prep.shards import IndexRow, ShardError, ShardSet
from data_prep.shards.sample import note_from_json
from pipeline.data.cuts import Outline, stays_true_mirrored

READERS = 16  # on a network file system they wait more than they work


def _quiet(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def outlines_of(shards: ShardSet, folder: Path, progress: Progress = _quiet) -> tuple[Outline, ...]:
    """The outline of every sample of a shard folder, in the index's order, from ``folder`` where it is kept there.

    Raises:
        InputError: a sample is not what the index says.
    """
    path = folder / f"outlines-{shards.manifest.index_sha256[:16]}.npz"
    known = _read(path, len(shards))
    if known is None:
        known = _outlined(shards, progress)
        _keep(path, known)
    return known


def _outlined(shards: ShardSet, progress: Progress) -> tuple[Outline, ...]:
    found = []
    with ThreadPoolExecutor(READERS) as threads:
        reading = [threads.submit(_outline, shards.folder, row) for row in shards.rows]
        try:
            for number, one in enumerate(reading, 1):
                found.append(one.result())
                progress("outlines", number, len(reading))
        finally:  # stopped: what is not begun is not waited for
            threads.shutdown(wait=False, cancel_futures=True)
    return tuple(found)


def _outline(folder: Path, row: IndexRow) -> Outline:
    """From the note and the caption alone; the rest of the sample is not read."""
    try:
        with (folder / row.shard).open("rb") as stream:
            stream.seek(row.offset)
            members = _small_members(stream)
        note = note_from_json(json.loads(members["json"]))
        return Outline(
            len(note.frames), note.height_px, note.width_px, stays_true_mirrored(members["txt"].decode())
        )
    except (OSError, tarfile.TarError, KeyError, ValueError) as error:
        raise ShardError(
            f"sample {row.key}: not found at byte {row.offset} of {str(folder / row.shard)!r} ({error}); copy the "
            "shard again or prepare the shards again"
        ) from error


def _small_members(stream: Any) -> dict[str, bytes]:
    """``json`` and ``txt`` of the sample that begins here."""
    members: dict[str, bytes] = {}
    with tarfile.open(fileobj=stream, mode="r:") as tar:
        for info in tar:
            name = info.name.split(".", 1)[1]
            if name in ("json", "txt"):
                content = tar.extractfile(info)
                assert content is not None
                members[name] = content.read()
            if len(members) == 2:
                break
    return members


def _read(path: Path, num_samples: int) -> tuple[Outline, ...] | None:
    """What is kept; None where nothing is, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            sizes, mirrors = stored["sizes"], stored["mirrors"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if len(sizes) != num_samples:
        return None
    return tuple(
        Outline(int(size[0]), int(size[1]), int(size[2]), bool(mirror))
        for size, mirror in zip(sizes, mirrors, strict=True)
    )


def _keep(path: Path, outlines: Sequence[Outline]) -> None:
    sizes = np.array([(o.num_frames, o.height_px, o.width_px) for o in outlines], np.int32).reshape(-1, 3)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as stream:
            np.savez(stream, sizes=sizes, mirrors=np.array([o.mirrors for o in outlines], np.bool_))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
