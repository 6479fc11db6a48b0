"""Where one file lies: a path, a URL, or a member of a zip or tar that lies at one of them.

Written as fsspec writes chains of file systems, so that an address in a ledger can be handed to it:
``zip://inner/a.mp4::s3://bucket/part.zip``. A tar's member also says which bytes it is, since finding it means
reading the headers of all that come before it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_BYTES = re.compile(r"(.*)#bytes=(\d+)-(\d+)", re.DOTALL)


@dataclass(frozen=True)
class Address:
    """place: path or URL of a file; archive and member: where the file is a zip or tar and one of its members is
    meant; start, end: the bytes ``[start, end)`` of a tar that are the member."""

    place: str
    archive: str = ""
    member: str = ""
    start: int = 0
    end: int = 0

    @classmethod
    def parse(cls, text: str) -> Address:
        """The address that ``str`` wrote; any other text is a plain path or URL."""
        archive = scheme(text)
        if archive not in ("zip", "tar") or "::" not in text:
            return cls(text)
        member, _, place = text[len("zip://") :].partition("::")  # no member has it in its name
        found = _BYTES.fullmatch(member) if archive == "tar" else None
        if found:
            return cls(place, archive, found[1], int(found[2]), int(found[3]))
        return cls(place, archive, member)

    def __str__(self) -> str:
        if not self.archive:
            return self.place
        span = f"#bytes={self.start}-{self.end}" if self.archive == "tar" else ""
        return f"{self.archive}://{self.member}{span}::{self.place}"

    @property
    def is_plain_file(self) -> bool:
        """A file of this machine, which needs no fetching."""
        return not self.archive and not scheme(self.place)


def scheme(place: str) -> str:
    """``s3`` of ``s3://bucket/key``; empty for a path."""
    found = _SCHEME.match(place)
    return found[1].lower() if found else ""


def full(place: str) -> str:
    """A URL as it is, except that one of this machine becomes a path; a path from the root."""
    path = place.removeprefix("file://")
    return place if scheme(path) else str(Path(path).resolve())


def parent(place: str) -> str:
    """The folder that a path or URL lies in."""
    head = place.rstrip("/").rpartition("/")[0]
    return head or ("/" if place.startswith("/") else ".")


def below(folder: str, name: str) -> str:
    """The place of ``name``, a relative path, in a folder."""
    return f"{folder.rstrip('/')}/{name}"
