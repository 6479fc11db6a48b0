"""Shards on disk: byte-identical tars written aside and renamed, the index, the manifest.

Tars are written with the standard library and fixed headers rather than ``webdataset.ShardWriter``, which leaves
a valid-looking partial tar under its final name when it is interrupted and stamps the time into every header.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from data_prep.atomic import write_atomic
from data_prep.records import Json
from data_prep.shards.sample import READ, SCHEMA, Sample, SampleNote, ShardError, encode_sample

Split = Literal["train", "validation"]

INDEX = "index.jsonl"
MANIFEST = "manifest.json"
MOST_WAITING = 4  # samples in memory that are written and not hashed yet
PREFIXES: dict[Split, str] = {"train": "shard", "validation": "validation"}
SHARDS = tuple(f"{prefix}-*.tar" for prefix in PREFIXES.values())


def shard_name(split: Split, number: int) -> str:
    """As ``SHARDS`` has it."""
    return f"{PREFIXES[split]}-{number:06d}.tar"


@dataclass(frozen=True)
class IndexRow:
    """One sample in a shard: bytes ``[offset, offset + length)`` of the file hold its members as a tar. sha256 is
    their identity, crc32 what a fast reader checks (8 hex digits; older indices have none); split: on which side it
    is of a split by sources and people."""

    shard: str
    key: str
    offset: int
    length: int
    sha256: str
    clip_id: str
    source_id: str
    cast: tuple[str, ...]
    split: Split = "train"
    crc32: str = ""


@dataclass(frozen=True)
class ShardFile:
    """One tar of the folder, as the manifest lists it."""

    name: str
    num_samples: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The commit record of a shard folder, written last.

    inputs_sha256 fingerprints the clips and the configuration that made the shards; facts holds the numbers a
    reader wants (clips, tracks, characters, dropped by rule, calibration, limits in force).
    """

    shards: tuple[ShardFile, ...]
    num_samples: int
    index_sha256: str
    inputs_sha256: str
    facts: Json
    schema: int = SCHEMA


@dataclass(frozen=True)
class WrittenShard:
    """A shard that is on disk: what the index says of its samples, and the manifest of it."""

    rows: tuple[IndexRow, ...]
    file: ShardFile


def write_shard(path: Path, samples: Iterable[Sample], split: Split = "train") -> tuple[IndexRow, ...]:
    """The index rows of ``write_tar``, for samples that are still to be encoded.

    Raises:
        ShardError: a sample breaks the format or a key comes twice.
        OSError: the disk is full or the folder is not writable; nothing stays behind.
    """
    encoded = ((row_of(path.name, sample.note, split), encode_sample(sample)) for sample in samples)
    return write_tar(path, encoded).rows


def write_tar(path: Path, samples: Iterable[tuple[IndexRow, Mapping[str, bytes]]]) -> WrittenShard:
    """Write one tar aside, fsync it and rename it into place; same samples, same bytes.

    Args:
        path: where it is when the call returns; the folder exists.
        samples: of each its row, whose offset, length and sha256 are filled in, and its members in their order.

    Raises:
        ShardError: a key comes twice.
        OSError: the disk is full or the folder is not writable; nothing stays behind.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as stream:
            rows, sha256 = _write(stream, samples)
            if len({row.key for row in rows}) != len(rows):
                raise ShardError(f"{path.name}: a key comes twice")
            num_bytes = stream.tell()
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return WrittenShard(rows, ShardFile(path.name, len(rows), num_bytes, sha256))


def _write(
    stream: io.BufferedWriter, samples: Iterable[tuple[IndexRow, Mapping[str, bytes]]]
) -> tuple[tuple[IndexRow, ...], str]:
    """The rows, and the sha256 of the whole. Hashes are computed in two threads while bytes go to the disk: hashing
    lets go of the interpreter's lock, and so does waiting for a disk."""
    rows: list[tuple[IndexRow, Future[tuple[str, str]]]] = []
    whole, backlog = hashlib.sha256(), deque[Future[None]]()
    with ThreadPoolExecutor(1) as own, ThreadPoolExecutor(1) as all_of_it:
        for row, members in samples:
            parts = [part for name, data in members.items() for part in _member(f"{row.key}.{name}", data)]
            place = replace(row, offset=stream.tell(), length=sum(map(len, parts)))
            rows.append((place, own.submit(_digests, parts)))
            backlog.append(all_of_it.submit(_update, whole, parts))
            stream.writelines(parts)
            if len(backlog) > MOST_WAITING:
                backlog.popleft().result()
        end = [b"\0" * 2 * tarfile.BLOCKSIZE]
        stream.writelines(end)
        all_of_it.submit(_update, whole, end)
        stream.flush()
        os.fsync(stream.fileno())
    return tuple(_with(row, *digests.result()) for row, digests in rows), whole.hexdigest()


def _with(row: IndexRow, sha256: str, crc32: str) -> IndexRow:
    return replace(row, sha256=sha256, crc32=crc32)


def _digests(parts: Sequence[bytes]) -> tuple[str, str]:
    """sha256 and crc32."""
    sha256, crc32 = hashlib.sha256(), 0
    for part in parts:
        sha256.update(part)
        crc32 = zlib.crc32(part, crc32)
    return sha256.hexdigest(), f"{crc32:08x}"


def _update(digest: hashlib._Hash, parts: Sequence[bytes]) -> None:
    for part in parts:
        digest.update(part)


def row_of(shard: str, note: SampleNote, split: Split) -> IndexRow:
    """The row of a sample that is not written yet."""
    cast = tuple(member.character_id for member in note.cast)
    return IndexRow(shard, note.key, 0, 0, "", note.clip_id, note.source_id, cast, split)


def _member(name: str, data: bytes) -> Iterator[bytes]:
    info = tarfile.TarInfo(name)  # its defaults carry no time, user or machine
    info.size = len(data)
    info.mode = 0o644
    yield info.tobuf(tarfile.USTAR_FORMAT)
    yield data
    yield b"\0" * (-len(data) % tarfile.BLOCKSIZE)


def write_index(
    folder: Path, rows: Sequence[IndexRow], inputs_sha256: str, facts: Json, files: Sequence[ShardFile] = ()
) -> Manifest:
    """Write the index, then, last, the manifest that makes the folder a finished one.

    Args:
        folder: holds every shard that ``rows`` names and ``files`` does not.
        rows: in the order of the samples.
        inputs_sha256: fingerprint of what the shards were made from.
        facts: numbers for readers, JSON without NaN.
        files: what is known of shards; those of which nothing is are read.

    Raises:
        ShardError: a key comes twice, or a source or a character is on both sides of the split.
    """
    check_index(rows)
    text = "".join(json.dumps(asdict(row), sort_keys=True) + "\n" for row in rows)
    write_atomic(folder / INDEX, text.encode())
    known = {file.name: file for file in files}
    names = sorted({row.shard for row in rows})
    shards = tuple(known.get(name) or _shard_file(folder, name, rows) for name in names)
    index_sha256 = hashlib.sha256(text.encode()).hexdigest()
    manifest = Manifest(shards, len(rows), index_sha256, inputs_sha256, facts)
    note = json.dumps(asdict(manifest), indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_atomic(folder / MANIFEST, note.encode())
    return manifest


def check_index(rows: Sequence[IndexRow]) -> None:
    """Raise ShardError for a key that comes twice, and for a source or character on both sides of the split."""
    keys: set[str] = set()
    sides: dict[tuple[str, str], Split] = {}
    for row in rows:
        if row.key in keys:
            raise ShardError(f"sample {row.key}: the key comes twice; one must be renamed or left out")
        keys.add(row.key)
        for what in (("source", row.source_id), *(("character", name) for name in row.cast)):
            side = sides.setdefault(what, row.split)
            if side != row.split:
                raise ShardError(
                    f"sample {row.key} is for {row.split}, and its {what[0]} {what[1]} is in samples for {side}; "
                    "a source or person is on one side alone: prepare the shards again"
                )


def _shard_file(folder: Path, name: str, rows: Sequence[IndexRow]) -> ShardFile:
    path = folder / name
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return ShardFile(name, sum(row.shard == name for row in rows), path.stat().st_size, digest)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder, or None where there is none.

    Raises:
        ShardError: the file is there and is not a manifest of this schema.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] not in READ:
            known = " and ".join(map(str, READ))
            raise ShardError(
                f"{str(path)!r}: schema {data['schema']}, this castbank reads {known}; prepare the shards again "
                "or use the castbank that wrote them"
            )
        data["shards"] = tuple(ShardFile(**shard) for shard in data["shards"])
        return Manifest(**data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ShardError(f"{str(path)!r} is not a castbank manifest: {error!r}") from error
