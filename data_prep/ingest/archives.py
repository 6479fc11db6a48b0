"""What lies in a zip or tar, without unpacking it, and which of it is not to be touched.

Nothing is ever written under a member's own name. All the same, an archive with a name that would leave the folder
it is unpacked into was made to do harm, and is refused whole. A member that would grow beyond measure is left out
by the sizes that the archive states; reading stops at them, so that stating less helps nobody.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

from data_prep.config import IngestConfig
from data_prep.ingest.address import Address
from data_prep.ingest.storage import RANGE_BYTES, Storage
from data_prep.records import InputError

ARCHIVES = (".zip", ".tar")
VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")


class DamagedError(Exception):
    """A member that cannot be read as its archive states it."""


@dataclass(frozen=True)
class Refusal:
    """Why a file is left out: the rule, the number it had and the limit, as the ledger keeps them."""

    rule: str
    value: str
    limit: str


@dataclass(frozen=True)
class Member:
    """One file of an archive. packed_bytes: what it takes there; check: what the archive states of its content."""

    address: Address
    num_bytes: int
    packed_bytes: int
    check: str
    encrypted: bool = False

    @property
    def name(self) -> str:
        return self.address.member

    def refusal(self, limits: IngestConfig) -> Refusal | None:
        """Why it may not be read, if so."""
        if self.encrypted:
            return Refusal("encrypted", self.name, "members without a password")
        if self.num_bytes > limits.max_clip_bytes:
            return Refusal("zip_bomb", f"{self.num_bytes} bytes", f"{limits.max_clip_bytes} bytes")
        ratio = self.num_bytes / max(self.packed_bytes, 1)
        if ratio > limits.max_ratio:
            return Refusal("zip_bomb", f"{ratio:.0f} times its packed size", f"{limits.max_ratio:g} times")
        return None


def members(storage: Storage, place: str) -> list[Member]:
    """The files in an archive, in its order; what the system of a Mac adds is left out.

    Raises:
        InputError: it is no archive of its name's kind, is compressed as a whole or cut off, holds two files of
            one name, or a name that leaves the folder it would be unpacked into.
    """
    kind = PurePosixPath(place).suffix.lower()
    with storage.open(place) as stream:
        found = list(_in_zip(place, stream) if kind == ".zip" else _in_tar(place, stream))
    kept: dict[str, Member] = {}
    for member in found:
        if unsafe(member.name):
            raise InputError(
                f"{place}: holds {member.name[:200]!r}, a name that leaves the folder it is unpacked into; such an "
                "archive is not to be trusted: remove it"
            )
        if member.name in kept:
            raise InputError(f"{place}: holds {member.name[:200]!r} twice; pack it again with each name once")
        kept[member.name] = member
    return [member for member in kept.values() if not _of_a_mac(member.name)]


def unsafe(name: str) -> bool:
    """Whether a relative name is none: empty, absolute, upwards, with a drive, or with what no name should hold."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return (
        not parts
        or parts[0].startswith("/")
        or ".." in parts
        or ":" in parts[0]
        or not name.isprintable()
        or "::" in name
    )


@contextmanager
def opened(storage: Storage, address: Address) -> Iterator[Iterator[bytes]]:
    """The content of a file or of an archive's member, in parts.

    Raises:
        DamagedError: the member is not what its archive states.
        FileNotFoundError: there is no such file or member.
    """
    if address.archive == "tar":
        yield storage.ranges(address.place, address.start, address.end)
    elif address.archive == "zip":
        with _unzipped(storage, address) as stream:
            yield _parts(stream)
    else:
        with storage.open(address.place) as stream:
            yield _parts(stream)


@contextmanager
def _unzipped(storage: Storage, address: Address) -> Iterator[IO[bytes]]:
    try:
        with (
            storage.open(address.place) as packed,
            zipfile.ZipFile(packed) as archive,
            archive.open(address.member) as stream,
        ):
            yield stream
    except KeyError as error:
        raise FileNotFoundError(str(address)) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise DamagedError(f"{address}: {error}") from error


def _parts(stream: IO[bytes]) -> Iterator[bytes]:
    while part := stream.read(RANGE_BYTES):
        yield part


def _in_zip(place: str, stream: IO[bytes]) -> Iterator[Member]:
    try:
        entries = zipfile.ZipFile(stream).infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise InputError(f"{place}: not a whole zip ({error}); fetch it again, or remove it") from error
    for entry in entries:
        if not entry.is_dir():
            yield Member(
                Address(place, "zip", entry.filename),
                entry.file_size,
                entry.compress_size,
                f"crc32:{entry.CRC:08x}:{entry.file_size}",
                encrypted=bool(entry.flag_bits & 1),
            )


def _in_tar(place: str, stream: IO[bytes]) -> Iterator[Member]:
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for entry in archive:
                if entry.isreg() and not entry.issparse():
                    start, end = entry.offset_data, entry.offset_data + entry.size
                    yield Member(
                        Address(place, "tar", entry.name, start, end),
                        entry.size,
                        entry.size,
                        f"{start}-{end}:{entry.mtime}",
                    )
    except tarfile.ReadError as error:
        raise InputError(
            f"{place}: not a whole, plain tar ({error}); if it is compressed, unpack it to a .tar, else "
            "fetch it again"
        ) from error


def _of_a_mac(name: str) -> bool:
    path = PurePosixPath(name)
    return "__MACOSX" in path.parts or path.name.startswith("._")
