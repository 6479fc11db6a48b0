"""A clip's file on this machine while it is worked on: where it is, or fetched and gone afterwards."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from data_prep.config import IngestConfig
from data_prep.ingest.address import Address
from data_prep.ingest.archives import opened
from data_prep.ingest.storage import Storage
from data_prep.ingest.stores import StorageError
from data_prep.records import Clip


@contextmanager
def local_clip(clip: Clip, limits: IngestConfig, desk: Path) -> Iterator[Clip]:
    """The clip with a path that any decoder opens; what had to be fetched lies on ``desk`` until the block ends.

    Raises:
        DamagedError: the member of an archive is not what the archive states.
        FileNotFoundError: the file is gone.
        StorageError: its store does not give it, or it is not what was found when the clips were listed.
    """
    address = Address.parse(clip.path)
    if address.is_plain_file:
        yield clip
        return
    folder = desk / f"fetched-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    try:
        name = address.member or address.place
        path = folder / f"{clip.id}{PurePosixPath(name).suffix.lower()[:8]}"
        _fetch(address, clip.content_id, Storage(limits), path)
        yield replace(clip, path=str(path))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fetch(address: Address, content_id: str, storage: Storage, path: Path) -> None:
    if content_id and not address.archive and storage.stat(address.place).content_id != content_id:
        raise StorageError(
            f"{address}: replaced since the clips were listed; run the same command again, which lists them anew"
        )
    with opened(storage, address) as parts, path.open("wb") as out:
        for part in parts:
            out.write(part)
