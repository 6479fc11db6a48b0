"""Tensors under names in packed files: written once and renamed into place, read one entry at a time.

A pack is a safetensors file of some entries, each one's tensors side by side under ENTRY/TENSOR, so that an entry
is one read; its metadata holds a checksum per entry. A folder of packs is made for one description, which is in its
name as a hash and beside the packs as ``key.json``: another description is another folder, and stale is never used.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import uuid
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from data_prep.records import InputError

KEY = "key.json"
PACKS = "*.safetensors"
READERS = 16  # of files' headers; on a network file system they wait more than they work
DTYPES = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
Tensors = Mapping[str, torch.Tensor]


class DamagedError(InputError):
    """A pack is not as it was written."""


@dataclass(frozen=True)
class _Tensor:
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class _Entry:
    """Bytes ``[begin, end)`` of the file, their CRC-32, and the tensors in them."""

    begin: int
    end: int
    crc: int
    tensors: tuple[_Tensor, ...]


class PackStore:
    """The packs of one description, safe for several writers; sees those of its opening and its own."""

    def __init__(self, folder: Path, kind: str, key: Mapping[str, str]) -> None:
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        self.key = dict(key)
        self.folder = folder / f"{kind}-{digest}"
        self._where: dict[str, Path] = {}
        self._checked: set[str] = set()
        self._headers = lru_cache(maxsize=1024)(_header)
        self._open()

    def __contains__(self, entry: str) -> bool:
        return entry in self._where

    def __len__(self) -> int:
        return len(self._where)

    def read(self, entry: str) -> dict[str, torch.Tensor]:
        """The tensors of one entry, as they were written; checked at this process's first reading of it.

        Raises:
            KeyError: there is no such entry.
            DamagedError: its bytes are not those that were written.
        """
        path = self._where[entry]
        try:
            found = _read(path, self._headers(path)[entry], check=entry not in self._checked)
        except (OSError, ValueError, KeyError) as error:
            raise DamagedError(
                f"cached {entry} in {str(path)!r} is damaged ({error}); run castbank cache with --check and "
                "the same configuration, it computes again what is damaged"
            ) from error
        self._checked.add(entry)
        return found

    def write(self, entries: Mapping[str, Tensors]) -> None:
        """Adds a pack with these entries, on the disk when this returns."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / KEY).is_file():
            _write_aside(self.folder / KEY, json.dumps(self.key, indent=1, sort_keys=True).encode() + b"\n")
        path = self.folder / f"{uuid.uuid4().hex}.safetensors"
        _write_aside(path, *_packed(entries))
        self._where.update(dict.fromkeys(entries, path))

    def sound(self, entry: str) -> bool:
        """Whether an entry is there and reads as it was written; reads all of it."""
        self._checked.discard(entry)
        try:
            return entry in self._where and bool(self.read(entry))
        except DamagedError:
            return False

    def drop(self, entry: str) -> None:
        """Removes the pack of an entry, with the others in it."""
        path = self._where[entry]
        path.unlink(missing_ok=True)
        self._where = {name: where for name, where in self._where.items() if where != path}

    def others(self) -> Iterator[dict[str, str]]:
        """What the folders of other descriptions of this kind were made for."""
        kind = self.folder.name.rpartition("-")[0]
        for path in sorted(self.folder.parent.glob(f"{kind}-*/{KEY}")):
            if path.parent != self.folder:
                yield json.loads(path.read_text(encoding="utf-8"))

    def _open(self) -> None:
        paths = sorted(self.folder.glob(PACKS))
        with ThreadPoolExecutor(READERS) as threads:
            for path, names in zip(paths, threads.map(_names, paths), strict=True):
                self._where.update(dict.fromkeys(names, path))


def _packed(entries: Mapping[str, Tensors]) -> tuple[bytes, ...]:
    """The parts of a safetensors file. In an entry wide types come first and its length is filled to 8 bytes, so
    that every tensor lies where its type may be read in place."""
    header: dict[str, object] = {}
    checksums, parts, at = {}, [], 0
    for entry, tensors in entries.items():
        assert "/" not in entry
        crc = 0
        ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
        length = sum(value.numel() * value.element_size() for value in tensors.values())
        ordered.append(("fill", torch.zeros(-length % 8, dtype=torch.uint8)))
        for name, value in ordered:
            data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            span = [at, at + len(data)]
            header[f"{entry}/{name}"] = {
                "dtype": NAMES[value.dtype],
                "shape": list(value.shape),
                "data_offsets": span,
            }
            crc, at = zlib.crc32(data, crc), span[1]
            parts.append(data)
        checksums[entry] = str(crc)
    text = json.dumps({"__metadata__": checksums, **header}).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)), text, *parts


def _write_aside(path: Path, *parts: bytes) -> None:
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # hosts that share the folder share no pids
    try:
        with aside.open("wb") as stream:
            stream.writelines(parts)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _names(path: Path) -> tuple[str, ...]:
    """The entries of a pack; none where it is damaged."""
    try:
        return tuple(_header(path))
    except (OSError, ValueError, KeyError):
        return ()


def _header(path: Path) -> dict[str, _Entry]:
    """Raises ValueError or KeyError for a file that is not whole."""
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8).ljust(8, b"\xff"))
        size = path.stat().st_size
        if length > size:
            raise ValueError("its beginning is missing")
        header = json.loads(stream.read(length))
    first = 8 + length
    checksums = header.pop("__metadata__")
    tensors: dict[str, list[_Tensor]] = {entry: [] for entry in checksums}
    for name, said in header.items():
        entry, _, tensor = name.partition("/")
        begin, end = (first + offset for offset in said["data_offsets"])
        tensors[entry].append(_Tensor(tensor, DTYPES[said["dtype"]], tuple(said["shape"]), begin, end))
    if size != max((tensor.end for some in tensors.values() for tensor in some), default=first):
        raise ValueError("its end is missing")
    return {
        entry: _Entry(some[0].begin, some[-1].end, int(checksums[entry]), tuple(some))
        for entry, some in tensors.items()
    }


def _read(path: Path, entry: _Entry, check: bool) -> dict[str, torch.Tensor]:
    data = torch.empty(
        entry.end - entry.begin, dtype=torch.uint8
    )  # a bytearray would be filled with zeros first
    view: Any = data.numpy()
    with path.open("rb", buffering=0) as stream:
        stream.seek(entry.begin)
        if stream.readinto(view) != len(view):
            raise ValueError("its end is missing")
    if check and zlib.crc32(view) != entry.crc:
        raise ValueError("its checksum differs")
    found = {}
    for tensor in entry.tensors:
        if tensor.name == "fill":
            continue
        part = data[tensor.begin - entry.begin : tensor.end - entry.begin]
        found[tensor.name] = part.view(tensor.dtype).view(tensor.shape)
    return found
