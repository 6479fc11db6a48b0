"""Shards on disk: byte-identical tars written aside and renamed, the index, the manifest, the strict reader.

Tars are written with the standard library and fixed headers rather than ``webdataset.ShardWriter``, which leaves
a valid-looking partial tar under its final name when it is interrupted and stamps the time into every header.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from data_prep.atomic import write_atomic
from data_prep.records import InputError, Json
from data_prep.shards.sample import SCHEMA, Sample, ShardError, decode_sample, encode_sample

INDEX = "index.jsonl"
MANIFEST = "manifest.json"
SHARDS = "shard-*.tar"


@dataclass(frozen=True)
class IndexRow:
    """One sample in a shard: bytes ``[offset, offset + length)`` of the file hold its members as a tar."""

    shard: str
    key: str
    offset: int
    length: int
    sha256: str
    clip_id: str
    source_id: str
    cast: tuple[str, ...]


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


def write_shard(path: Path, samples: Iterable[Sample]) -> tuple[IndexRow, ...]:
    """Write one tar aside, fsync it and rename it into place; same samples, same bytes.

    Raises:
        ShardError: a sample breaks the format or a key comes twice.
        OSError: the disk is full or the folder is not writable; nothing stays behind.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    rows: list[IndexRow] = []
    try:
        with aside.open("wb") as stream:
            for sample in samples:
                rows.append(_append(stream, path.name, sample))
            if len({row.key for row in rows}) != len(rows):
                raise ShardError(f"{path.name}: a key comes twice")
            stream.write(b"\0" * 2 * tarfile.BLOCKSIZE)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return tuple(rows)


def _append(stream: io.BufferedWriter, shard: str, sample: Sample) -> IndexRow:
    span = b"".join(
        _member(f"{sample.note.key}.{name}", data) for name, data in encode_sample(sample).items()
    )
    offset = stream.tell()
    stream.write(span)
    note = sample.note
    return IndexRow(
        shard=shard,
        key=note.key,
        offset=offset,
        length=len(span),
        sha256=hashlib.sha256(span).hexdigest(),
        clip_id=note.clip_id,
        source_id=note.source_id,
        cast=tuple(member.character_id for member in note.cast),
    )


def _member(name: str, data: bytes) -> bytes:
    info = tarfile.TarInfo(name)  # its defaults carry no time, user or machine
    info.size = len(data)
    info.mode = 0o644
    padding = -len(data) % tarfile.BLOCKSIZE
    return info.tobuf(tarfile.USTAR_FORMAT) + data + b"\0" * padding


def write_index(folder: Path, rows: Sequence[IndexRow], inputs_sha256: str, facts: Json) -> Manifest:
    """Write the index, then, last, the manifest that makes the folder a finished one.

    Args:
        folder: holds every shard that ``rows`` names.
        rows: in the order of the samples.
        inputs_sha256: fingerprint of what the shards were made from.
        facts: numbers for readers, JSON without NaN.
    """
    text = "".join(json.dumps(asdict(row), sort_keys=True) + "\n" for row in rows)
    write_atomic(folder / INDEX, text.encode())
    shards = tuple(_shard_file(folder, name, rows) for name in sorted({row.shard for row in rows}))
    index_sha256 = hashlib.sha256(text.encode()).hexdigest()
    manifest = Manifest(shards, len(rows), index_sha256, inputs_sha256, facts)
    note = json.dumps(asdict(manifest), indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_atomic(folder / MANIFEST, note.encode())
    return manifest


def _shard_file(folder: Path, name: str, rows: Sequence[IndexRow]) -> ShardFile:
    path = folder / name
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return ShardFile(name, sum(row.shard == name for row in rows), path.stat().st_size, digest)


class ShardSet:
    """A finished shard folder: its manifest, its index and random access to its samples."""

    def __init__(self, folder: Path, manifest: Manifest, rows: tuple[IndexRow, ...]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.rows = rows

    @classmethod
    def open(cls, folder: Path) -> ShardSet:
        """Read manifest and index.

        Raises:
            InputError: no folder, no manifest (unfinished), another schema, or an index that is not the
                manifest's.
        """
        if not folder.is_dir():
            raise InputError(f"shards {str(folder)!r}: no such folder; give one that castbank prepare wrote")
        manifest = read_manifest(folder)
        if manifest is None:
            raise InputError(
                f"shards {str(folder)!r}: no {MANIFEST}, so this folder is unfinished or not ours; "
                "run castbank prepare again with the same output, it goes on where it stopped"
            )
        text = (folder / INDEX).read_text(encoding="utf-8") if (folder / INDEX).is_file() else ""
        if hashlib.sha256(text.encode()).hexdigest() != manifest.index_sha256:
            raise ShardError(
                f"shards {str(folder)!r}: {INDEX} is not the one the manifest was written for; "
                "delete the folder and prepare again"
            )
        return cls(folder, manifest, tuple(_row(json.loads(line)) for line in text.splitlines()))

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> Sample:
        """The sample of one index row.

        Raises:
            ShardError: the bytes are not those the index was written for, or break the format.
        """
        row = self.rows[index]
        path = self.folder / row.shard
        if not path.is_file():
            raise ShardError(f"sample {row.key}: shard {str(path)!r} is missing; prepare the shards again")
        with path.open("rb") as stream:
            stream.seek(row.offset)
            span = stream.read(row.length)
        if hashlib.sha256(span).hexdigest() != row.sha256:
            raise ShardError(
                f"sample {row.key}: bytes {row.offset}+{row.length} of {str(path)!r} are damaged (sha256 "
                "differs from the index); copy the shard again or prepare the shards again"
            )
        try:
            return decode_sample(_members(span))
        except ShardError as error:
            said = str(error).removeprefix(f"sample {row.key}").lstrip(":, ")
            raise ShardError(
                f"sample {row.key} of {str(path)!r}: {said}; prepare the shards again with this "
                "castbank (the format: data_prep/shards/__init__.py)"
            ) from error


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
        if data["schema"] != SCHEMA:
            raise ShardError(
                f"{str(path)!r}: schema {data['schema']}, this castbank reads {SCHEMA}; prepare the shards again "
                "or use the castbank that wrote them"
            )
        data["shards"] = tuple(ShardFile(**shard) for shard in data["shards"])
        return Manifest(**data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ShardError(f"{str(path)!r} is not a castbank manifest: {error!r}") from error


def _row(data: Json) -> IndexRow:
    return IndexRow(**{**data, "cast": tuple(data["cast"])})


def _members(span: bytes) -> dict[str, bytes]:
    members = {}
    with tarfile.open(fileobj=io.BytesIO(span)) as tar:
        for info in tar:
            stream = tar.extractfile(info)
            assert stream is not None
            members[info.name.split(".", 1)[1]] = stream.read()
    return members
