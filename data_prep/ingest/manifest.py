"""Reads what describes clips into Clips: a table, a folder of videos with sidecars, a folder of WebDataset tars.

What is wrong with the manifest as a whole or with the type of a value stops the run with an InputError that names
place, column, value and what is allowed; what is wrong with one clip (its file is absent, would grow beyond
measure, a person refused consent) is a Decision, and the other clips go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from data_prep.config import IngestConfig
from data_prep.ingest.address import full, parent, scheme
from data_prep.ingest.archives import Refusal
from data_prep.ingest.clip_files import AmbiguousError, ClipFiles, Found
from data_prep.ingest.folders import read_folder, read_tar
from data_prep.ingest.rows import REQUIRED, Row
from data_prep.ingest.storage import Storage
from data_prep.ingest.tables import READERS
from data_prep.records import Clip, Decision, InputError

CONSENT = Refusal("consent_refused", "refused", "granted or unknown")


def read_clips(manifest: str, clips: str, limits: IngestConfig) -> tuple[list[Clip], list[Decision]]:
    """The clips of a manifest in its order, and the fate of every one that cannot be used.

    In a table, ``clip_id`` is a path relative to ``clips``, or the name of a file anywhere below it, also inside a
    zip (UltraVideo's archives nest their folders); ``clips`` empty is the folder that the table lies in.

    Raises:
        InputError: it is no manifest, lacks a column, has a value of the wrong type, an unsafe path or a clip_id
            twice, or its store does not answer.
    """
    read: list[Clip] = []
    decisions: list[Decision] = []
    seen: dict[str, Row] = {}
    manifest = full(manifest)
    for row, clip, refusal in _entries(manifest, clips, Storage(limits)):
        if clip.id in seen:
            before = seen[clip.id].where.rpartition(", ")[2]
            raise row.error("clip_id", f"also in {before}", "each clip_id once; remove one of the two")
        seen[clip.id] = row
        why = CONSENT if clip.consent == "refused" else refusal
        if why:
            decisions.append(Decision(clip.id, "clip", "dropped", "ingest", why.rule, why.value, why.limit))
        else:
            read.append(clip)
    if not seen:
        raise InputError(f"{manifest}: no rows after the header; at least one clip is needed")
    return read, decisions


def _entries(manifest: str, clips: str, storage: Storage) -> Iterator[tuple[Row, Clip, Refusal | None]]:
    """Each row with the clip it describes, and why that cannot be used, if so."""
    ending = PurePosixPath(manifest).suffix.lower()
    if ending == ".tar" or (ending not in READERS and (scheme(manifest) or Path(manifest).is_dir())):
        if clips:
            raise InputError(f"clips={clips}: {manifest} holds its clips itself; leave clips out")
        for row, found in _sidecars(manifest, ending, storage):
            clip_id = row.clip_id()
            yield row, row.clip_that_may_say_little(clip_id, found.address, found.content_id), found.refusal
        return
    rows = _table(manifest, ending, storage)
    folder = full(clips) if clips else parent(manifest)
    files = ClipFiles(storage, folder)
    for row in rows:
        clip_id = row.clip_id()
        try:
            wanted = files.find(clip_id)
        except AmbiguousError as error:
            raise row.error("clip_id", str(error), "the relative path") from error
        found = wanted or Found(clip_id, "", Refusal("file_missing", clip_id, f"a file below {folder}"))
        yield row, row.clip(clip_id, found.address, found.content_id), found.refusal


def _sidecars(manifest: str, ending: str, storage: Storage) -> Iterator[tuple[Row, Found]]:
    if ending != ".tar":
        return read_folder(storage, manifest)
    _refuse_absent(manifest, storage)
    return read_tar(storage, manifest, PurePosixPath(manifest).stem)


def _table(manifest: str, ending: str, storage: Storage) -> Iterator[Row]:
    _refuse_absent(manifest, storage)
    if ending not in READERS:
        raise InputError(
            f"manifest {manifest}: what ends in {ending!r} is no table that is read here; give {', '.join(READERS)}"
            ", a folder of videos or of WebDataset tars, or one .tar"
        )
    return READERS[ending](storage, manifest)


def _refuse_absent(manifest: str, storage: Storage) -> None:
    try:
        storage.stat(manifest)
    except FileNotFoundError as error:
        raise InputError(
            f"manifest {manifest} does not exist; give a table with the columns {', '.join(REQUIRED)}, or a folder "
            "of clips"
        ) from error
