"""Reading from wherever files lie, alike: paths of this machine, and URLs through fsspec.

A large file is read in ranges, each asked for again on its own when it fails, so that a fault near the end of a
4K clip costs one range and not the clip.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from data_prep.config import IngestConfig
from data_prep.ingest.address import scheme
from data_prep.ingest.stores import filesystem, inside, patiently
from data_prep.records import InputError

if TYPE_CHECKING:
    from typing_extensions import Buffer

RANGE_BYTES = 16 * 1024**2  # of one request
BUFFER_BYTES = 64 * 1024  # read at once where little is wanted: a tar's header and the small files behind it

_CONTENT_KEYS = ("sha256", "e_tag", "ETag", "etag", "md5Hash", "blob_id")


@dataclass(frozen=True)
class Stat:
    """A file as its store describes it. stamp: changes when the file does; content_id: what the store vouches for
    the content with, such as an ETag; empty where it must be read to be known."""

    num_bytes: int
    stamp: str
    content_id: str = ""


@dataclass(frozen=True)
class Storage:
    """All places that can be read, with the patience that the limits give."""

    limits: IngestConfig

    def stat(self, place: str) -> Stat:
        """Raises FileNotFoundError where there is no file."""
        if not scheme(place):
            status = Path(place).stat()
            return Stat(status.st_size, f"{status.st_mtime_ns:020d}")  # so that later times sort later
        system = self._system(place)
        return _stat(patiently(place, lambda: system.info(inside(system, place)), self.limits))

    def content_id(self, place: str) -> str:
        """What the store of a URL vouches for its content with; asked once, empty for a path."""
        return _content_id(self, place) if scheme(place) else ""

    def files(self, folder: str) -> dict[str, Stat | None]:
        """Every file below a folder by its relative path, in order; a local one is not looked at, which is None."""
        if not scheme(folder):
            return {name: None for name in sorted(_walk(Path(folder)))}
        system = self._system(folder)
        root = inside(system, folder)
        try:
            found = patiently(folder, lambda: system.find(root, detail=True), self.limits)
        except FileNotFoundError:
            return {}
        return {name[len(root) :].lstrip("/"): _stat(info) for name, info in sorted(found.items())}

    def open(self, place: str) -> IO[bytes]:
        """A seekable stream of a file's bytes. Raises FileNotFoundError where there is none."""
        if not scheme(place):
            return Path(place).open("rb")
        raw = _Ranges(self, place, self.stat(place).num_bytes)
        return io.BufferedReader(raw, BUFFER_BYTES)

    def read(self, place: str, most_bytes: int) -> bytes:
        """All of a small file. Raises InputError where it is not small."""
        with self.open(place) as stream:
            content = stream.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise InputError(f"{place}: more than {most_bytes} bytes, too much for what it is read for")
        return content

    def ranges(self, place: str, start: int, end: int) -> Iterator[bytes]:
        """The bytes ``[start, end)`` of a file, a range at a time."""
        with self.open(place) as stream:
            stream.seek(start)
            while start < end:
                part = stream.read(min(RANGE_BYTES, end - start))
                if not part:
                    raise InputError(f"{place}: ends at byte {start}, {end} are expected; it was cut off")
                start += len(part)
                yield part

    def bytes_at(self, place: str, start: int, end: int) -> bytes:
        """The bytes ``[start, end)`` of the file at a URL, in one request that is tried again."""
        system = self._system(place)
        key = inside(system, place)

        def ask() -> bytes:
            part = bytes(system.cat_file(key, start=start, end=end))
            if len(part) != end - start:
                raise OSError(f"{len(part)} bytes came of {end - start}")
            return part

        return patiently(place, ask, self.limits)

    def _system(self, place: str) -> Any:
        return filesystem(scheme(place), self.limits)


class _Ranges(io.RawIOBase):
    """A remote file as a raw stream: every read is one request."""

    def __init__(self, storage: Storage, place: str, num_bytes: int) -> None:
        self._storage, self._place, self._num_bytes, self._at = storage, place, num_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._num_bytes}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer)
        end = min(self._at + min(len(view), RANGE_BYTES), self._num_bytes)
        if end <= self._at:
            return 0
        part = self._storage.bytes_at(self._place, self._at, end)
        view[: len(part)] = part
        self._at = end
        return len(part)


@lru_cache(maxsize=4096)
def _content_id(storage: Storage, place: str) -> str:
    return storage.stat(place).content_id


def _stat(info: dict[str, Any]) -> Stat:
    """From what fsspec says of a file. Raises FileNotFoundError for a folder."""
    if info.get("type") == "directory":
        raise FileNotFoundError(f"{info.get('name')} is a folder")
    num_bytes = int(info.get("size") or 0)
    vouched = next((f"{key}:{info[key]}:{num_bytes}" for key in _CONTENT_KEYS if info.get(key)), "")
    times = (info.get(key) for key in ("mtime", "last_modified", "LastModified", "created"))
    return Stat(num_bytes, vouched or str(next((time for time in times if time), "")), vouched)


def _walk(folder: Path) -> Iterator[str]:
    for place, _, names in os.walk(folder):
        for name in names:
            yield (Path(place) / name).relative_to(folder).as_posix()
