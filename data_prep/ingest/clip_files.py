"""Finds the file of a clip by its id: below a folder, or in the zips that lie there.

UltraVideo's clips come as ``clips_short/clips_short_{1..36}.zip`` with a folder inside each, and its table gives
bare names. Whether the zips are unpacked or not makes no difference to a clip's id or content.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TypeVar

from data_prep.ingest.address import below, scheme
from data_prep.ingest.archives import VIDEOS, Member, Refusal, members
from data_prep.ingest.storage import Stat, Storage
from data_prep.records import InputError, digest

T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """A clip's file. content_id: as its store vouches for the content, empty where it must be read; refusal: why it
    is left out, if so."""

    address: str
    content_id: str = ""
    refusal: Refusal | None = None


class AmbiguousError(Exception):
    """Several files answer to one name."""


class ClipFiles:
    """The videos below a folder, and in the zips below it; listed once, when they are first asked for."""

    def __init__(self, storage: Storage, folder: str) -> None:
        """Raises InputError where the folder does not exist."""
        self._storage, self._folder = storage, folder
        there = (
            self._files if scheme(folder) else Path(folder).is_dir()
        )  # a store's folder is what lies in it
        if not there:
            raise InputError(
                f"clips folder {folder} does not exist; give the folder that clip_id is relative to"
            )

    def find(self, clip_id: str) -> Found | None:
        """By relative path, else, for a bare name, anywhere below, else in a zip by the end of its path there.

        Raises:
            AmbiguousError: several files are meant alike.
        """
        if self._is_there(clip_id):
            return found_file(self._storage, self._folder, clip_id, self._stat(clip_id))
        name = PurePosixPath(clip_id).name
        if name == clip_id and (named := self._by_name.get(name)):
            only = _only([below(self._folder, path) for path in named], named)
            return found_file(self._storage, self._folder, only, self._stat(only))
        packed = [m for m in self._packed.get(name, ()) if f"/{m.name}".endswith(f"/{clip_id}")]
        if not packed:
            return None
        return found_member(self._storage, _only([str(m.address) for m in packed], packed))

    def _is_there(self, clip_id: str) -> bool:
        if scheme(self._folder):
            return clip_id in self._files
        try:
            return Path(self._folder, clip_id).is_file()  # without a listing, which may be long
        except OSError:  # a name that no file system holds; a zip may
            return False

    def _stat(self, name: str) -> Stat | None:
        return self._files[name] if scheme(self._folder) else None

    @cached_property
    def _files(self) -> dict[str, Stat | None]:
        return self._storage.files(self._folder)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        """Relative paths of the videos by bare name."""
        names: dict[str, list[str]] = defaultdict(list)
        for path in self._files:
            if path.lower().endswith(VIDEOS):
                names[PurePosixPath(path).name].append(path)
        return names

    @cached_property
    def _packed(self) -> dict[str, list[Member]]:
        """Videos in zips by bare name."""
        names: dict[str, list[Member]] = defaultdict(list)
        for path in self._files:
            if path.lower().endswith(".zip"):
                for member in members(self._storage, below(self._folder, path)):
                    if member.name.lower().endswith(VIDEOS):
                        names[PurePosixPath(member.name).name].append(member)
        return names


def found_file(storage: Storage, folder: str, name: str, stat: Stat | None) -> Found:
    """A file of a folder, by its relative name."""
    place = below(folder, name)
    if stat is None:
        readable = os.access(place, os.R_OK)
        return Found(
            place, refusal=None if readable else Refusal("not_readable", name, "a file one may read")
        )
    most = storage.limits.max_clip_bytes
    large = (
        Refusal("too_large", f"{stat.num_bytes} bytes", f"{most} bytes") if stat.num_bytes > most else None
    )
    return Found(place, stat.content_id, large)


def found_member(storage: Storage, member: Member) -> Found:
    """A file of an archive: known by what a store vouches for the archive with, where one does."""
    vouched = storage.content_id(member.address.place)
    content_id = digest([vouched, member.name, member.check]) if vouched else ""
    return Found(str(member.address), content_id, member.refusal(storage.limits))


def _only(places: Sequence[str], items: Sequence[T]) -> T:
    if len(items) > 1:
        raise AmbiguousError(f"two files have this name: {places[0]}, {places[1]}")
    return items[0]
