"""The strict reader of a shard folder: by place, or one after the other, every byte checked against the index.

What is wrong is said of one sample by its key: bytes that are not those the index was written for, a member that is
missing or another sample's, a note that contradicts the index. ``webdataset`` and ``tarfile`` skip or mend such
things in silence: a truncated tar gives samples without their video.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from data_prep.records import InputError, Json
from data_prep.shards.files import (
    INDEX,
    MANIFEST,
    IndexRow,
    Manifest,
    Split,
    check_index,
    read_manifest,
    row_of,
)
from data_prep.shards.sample import MEMBERS, Sample, SampleNote, ShardError, decode_sample, read_note

BLOCK = tarfile.BLOCKSIZE
_Part = tuple[bytes, bytes, bytes]
NAME, SIZE, KIND, PREFIX = (
    slice(0, 100),
    slice(124, 136),
    slice(156, 157),
    slice(345, 500),
)  # of a ustar header


class ShardSet:
    """A finished shard folder: its manifest, and index and samples of one side of its split."""

    def __init__(self, folder: Path, manifest: Manifest, rows: tuple[IndexRow, ...]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.rows = rows

    @classmethod
    def open(cls, folder: Path, split: Split | Literal["all"] = "train") -> ShardSet:
        """Read manifest and index; ``split``: whose samples, those kept for validation only where they are asked
        for.

        Raises:
            InputError: no folder, no manifest (unfinished), another schema, or an index that is not the manifest's
                or has a source or person on both sides of the split.
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
        rows = tuple(_row(json.loads(line)) for line in text.splitlines())
        check_index(rows)
        return cls(folder, manifest, tuple(row for row in rows if split in (row.split, "all")))

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> Sample:
        """The sample of one index row; its sha256 is checked.

        Raises:
            ShardError: the bytes are not those the index was written for, or break the format.
        """
        ((row, members),) = self.members([index], check="sha256")
        return self.decode(row, members)

    def members(
        self, order: Iterable[int] | None = None, check: Literal["crc32", "sha256"] = "crc32"
    ) -> Iterator[tuple[IndexRow, dict[str, bytes]]]:
        """Row and members, not decoded, of each sample in ``order`` (index rows), or of all.

        ``check``: crc32 finds every flipped bit and torn file in half the time of sha256, and what was changed on
        purpose it does not; an index without it is checked by sha256.

        Raises:
            ShardError: a shard is missing, bytes are not those the index was written for, or a sample lacks a
                member or holds another's.
        """
        handle, shard = -1, ""
        try:
            for row in self.rows if order is None else (self.rows[index] for index in order):
                if row.shard != shard:
                    if handle >= 0:
                        os.close(handle)
                    handle, shard = -1, ""
                    handle, shard = self._opened(row), row.shard
                yield row, self._checked(row, list(_parts(handle, row)), check)
        finally:
            if handle >= 0:
                os.close(handle)

    def notes(self, order: Iterable[int]) -> Iterator[SampleNote]:
        """The notes alone of the samples in ``order``, the first member of each: what is not read is not checked.

        Raises:
            ShardError: a shard is missing, or a sample does not begin with its note.
        """
        for row in (self.rows[index] for index in order):
            handle = self._opened(row)
            try:
                header, data, _ = next(_parts(handle, row))
            finally:
                os.close(handle)
            if header[NAME].rstrip(b"\0") != f"{row.key}.json".encode():
                raise self._broken(row, "it does not begin with its json")
            yield read_note(data)

    def decode(self, row: IndexRow, members: dict[str, bytes]) -> Sample:
        """The sample of a row's members; raises ShardError where they break the format or contradict the row."""
        try:
            sample = decode_sample(members)
        except ShardError as error:
            raise self._broken(row, str(error)) from error
        told = row_of(row.shard, sample.note, row.split)
        if told != replace(row, offset=0, length=0, sha256="", crc32=""):
            raise self._broken(row, f"its json is of another sample than the index says: {told}")
        return sample

    def _opened(self, row: IndexRow) -> int:
        path = self.folder / row.shard
        try:
            return os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise ShardError(
                f"sample {row.key}: shard {str(path)!r} is missing; prepare the shards again"
            ) from None

    def _checked(self, row: IndexRow, parts: Sequence[_Part], check: str) -> dict[str, bytes]:
        kind = check if row.crc32 else "sha256"
        if _digest(parts, kind) != (row.crc32 if kind == "crc32" else row.sha256):
            raise ShardError(
                f"sample {row.key}: bytes {row.offset}+{row.length} of {str(self.folder / row.shard)!r} are "
                f"damaged ({kind} differs from the index); copy the shard again or prepare the shards again"
            )
        try:
            members = dict(_members(parts, row.key))
        except (ShardError, tarfile.TarError, ValueError) as error:
            raise self._broken(row, str(error)) from error
        missing = [name for name in MEMBERS if name not in members]
        if missing:
            has = ", ".join(sorted(members)) or "nothing"
            raise self._broken(row, f"a sample lacks {', '.join(missing)}; it has {has}")
        return members

    def _broken(self, row: IndexRow, problem: str) -> ShardError:
        said = problem.removeprefix(f"sample {row.key}").lstrip(":, ")
        return ShardError(
            f"sample {row.key} of {str(self.folder / row.shard)!r}: {said}; prepare the shards again with this "
            "castbank (the format: data_prep/shards/__init__.py)"
        )


def _row(data: Json) -> IndexRow:
    return IndexRow(**{**data, "cast": tuple(data["cast"])})


def _parts(handle: int, row: IndexRow) -> Iterator[_Part]:
    """Header, data and padding of each member, read one by one so that nothing is copied. Where bytes are no tar,
    these are other bytes than the index was written for, and their checksum says so."""
    at, end = row.offset, row.offset + row.length
    while at < end:
        header = os.pread(handle, BLOCK, at)
        size = min(_size(header), max(end - at - BLOCK, 0))  # a damaged header may say anything
        padding = -size % BLOCK
        yield header, os.pread(handle, size, at + BLOCK), os.pread(handle, padding, at + BLOCK + size)
        at += BLOCK + size + padding


def _size(header: bytes) -> int:
    """Bytes of data that follow a header; none after what is no header."""
    try:
        return max(int(header[SIZE].rstrip(b"\0 "), 8), 0)
    except ValueError:
        return 0


def _digest(parts: Sequence[_Part], kind: str) -> str:
    if kind == "sha256":
        digest = hashlib.sha256()
        for part in parts:
            for piece in part:
                digest.update(piece)
        return digest.hexdigest()
    crc32 = 0
    for part in parts:
        for piece in part:
            crc32 = zlib.crc32(piece, crc32)
    return f"{crc32:08x}"


def _members(parts: Sequence[_Part], key: str) -> Iterator[tuple[str, bytes]]:
    """Member name without the key, and its bytes. A span with anything but plain ustar files, which is another
    writer's, is left to ``tarfile``, which takes longer."""
    if any(header[KIND] not in (b"0", b"\0") or header[PREFIX].strip(b"\0") for header, _, _ in parts):
        yield from _foreign(b"".join(piece for part in parts for piece in part), key)
        return
    for header, data, _ in parts:
        yield _named(header[NAME].rstrip(b"\0").decode(), key), data


def _foreign(span: bytes, key: str) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(span)) as tar:
        for info in tar:
            stream = tar.extractfile(info)
            if stream is None:
                raise ShardError(f"member {info.name!r} is not a file")
            yield _named(info.name, key), stream.read()


def _named(name: str, key: str) -> str:
    own, _, member = name.partition(".")
    if own != key:
        raise ShardError(f"member {name!r} is another sample's")
    return member
