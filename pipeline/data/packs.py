"""Tensors under names in packed files: written once and renamed into place, read one entry at a time.

A folder of packs (see ``pack_file``) is made for one description, which is in its name as a hash and beside the
packs as ``key.json``: another description is another folder, and stale is never used.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import torch

from data_prep.records import InputError
from pipeline.data.pack_file import PackFile, Place, Tensors, packed, places

KEY = "key.json"
PACKS = "*.safetensors"
READERS = 16  # of files' headers; on a network file system they wait more than they work
OPEN_FILES = 64  # at once; of 1,024 that a process may have by default
FULL = (
    "data.num_workers: no room is left in the memory that processes share (/dev/shm), where batches are made; give "
    "it more (docker --shm-size), or a smaller batch_size, data.prefetch or data.num_workers (0 needs none)"
)


class DamagedError(InputError):
    """A pack is not as it was written."""


class PackStore:
    """The packs of one description, safe for several writers; sees those of its opening and its own."""

    def __init__(self, folder: Path, kind: str, key: Mapping[str, str]) -> None:
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        self.key = dict(key)
        self.folder = folder / f"{kind}-{digest}"
        self._where: dict[str, Place] = {}
        self._checked: set[str] = set()
        self._files = lru_cache(maxsize=OPEN_FILES)(PackFile)
        self._open()

    def __contains__(self, entry: str) -> bool:
        return entry in self._where

    def __len__(self) -> int:
        return len(self._where)

    def place(self, entry: str) -> Place:
        """What is stored of an entry, and where; raises KeyError where there is no such entry."""
        return self._where[entry]

    def read(self, entry: str, into: Tensors | None = None) -> dict[str, torch.Tensor]:
        """The tensors of one entry, as they were written; checked at this process's first reading of it. Those that
        ``into`` names are read into it, which must be contiguous and of the stored shape and type.

        Raises:
            KeyError: there is no such entry.
            DamagedError: its bytes are not those that were written.
            InputError: ``into`` is shared memory that has no room.
        """
        place = self._where[entry]
        try:
            found = self._files(place.path).read(place, into or {}, check=entry not in self._checked)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno == errno.EFAULT:
                raise InputError(FULL) from error
            raise DamagedError(
                f"cached {entry} in {str(place.path)!r} is damaged ({error}); run castbank cache with --check and "
                "the same configuration, it computes again what is damaged"
            ) from error
        self._checked.add(entry)
        return found

    def write(self, entries: Mapping[str, Tensors]) -> None:
        """Adds a pack with these entries, on the disk when this returns."""
        self._write(self.folder / f"{uuid.uuid4().hex}.safetensors", entries)

    def write_alone(self, entry: str, tensors: Tensors) -> None:
        """Adds a pack with one entry, which has its name, so that others ``find`` it without opening all again."""
        self._write(self._alone(entry), {entry: tensors})

    def find(self, entry: str) -> bool:
        """Whether there is such an entry, also where another process has written it alone meanwhile."""
        if entry not in self._where and (path := self._alone(entry)).is_file():
            self._where.update(_places(path))
        return entry in self._where

    def sound(self, entry: str) -> bool:
        """Whether an entry is there and reads as it was written; reads all of it."""
        self._checked.discard(entry)
        try:
            return entry in self._where and bool(self.read(entry))
        except DamagedError:
            return False

    def drop(self, entry: str) -> None:
        """Removes the pack of an entry, with the others in it."""
        path = self._where[entry].path
        path.unlink(missing_ok=True)
        self._files.cache_clear()
        self._where = {name: place for name, place in self._where.items() if place.path != path}

    def others(self) -> Iterator[dict[str, str]]:
        """What the folders of other descriptions of this kind were made for."""
        kind = self.folder.name.rpartition("-")[0]
        for path in sorted(self.folder.parent.glob(f"{kind}-*/{KEY}")):
            if path.parent != self.folder:
                yield json.loads(path.read_text(encoding="utf-8"))

    def _open(self) -> None:
        paths = sorted(self.folder.glob(PACKS))
        with ThreadPoolExecutor(READERS) as threads:
            found = list(zip(paths, threads.map(_places, paths), strict=True))
        for _, some in sorted(found, key=lambda one: one[0].stem in one[1]):
            self._where.update(
                some
            )  # those alone last: they may have been written because of damage in a pack

    def _alone(self, entry: str) -> Path:
        return self.folder / f"{entry}.safetensors"

    def _write(self, path: Path, entries: Mapping[str, Tensors]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / KEY).is_file():
            text = json.dumps(self.key, indent=1, sort_keys=True) + "\n"
            _write_aside(self.folder / KEY, [text.encode()])
        _write_aside(path, packed(entries))
        self._files.cache_clear()  # a damaged one of this name may be open
        self._where.update(places(path))
        self._checked -= entries.keys()


def _write_aside(path: Path, parts: Iterable[bytes]) -> None:
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # hosts that share the folder share no pids
    try:
        with aside.open("wb") as stream:
            stream.writelines(parts)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _places(path: Path) -> dict[str, Place]:
    """The entries of a pack; none where it is damaged."""
    try:
        return places(path)
    except (OSError, ValueError, KeyError):
        return {}
