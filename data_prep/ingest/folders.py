"""Clips without a table: a folder of videos with sidecars, or of WebDataset tars.

Beside ``a/b.mp4`` may lie ``a/b.txt``, its caption, and ``a/b.json``, an object with the names that a table's
columns have. In a tar, what has one name up to its first dot belongs together, as WebDataset has it, also where
other files lie in between.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from data_prep.ingest.address import below
from data_prep.ingest.archives import VIDEOS, Member, members, opened
from data_prep.ingest.clip_files import Found, found_file, found_member
from data_prep.ingest.rows import Row
from data_prep.ingest.storage import Storage
from data_prep.ingest.tables import json_object
from data_prep.records import InputError

MOST_SIDECAR_BYTES = 4 * 1024**2
"""UltraVideo's captions have 824 words on average, 6 kB."""

_JUNK = ("._",)  # what a Mac leaves beside files on foreign disks


@dataclass(frozen=True)
class _Texts:
    """The sidecars of one video, as text; None where there is none."""

    caption: str | None
    facts: str | None


def read_folder(storage: Storage, folder: str) -> Iterator[tuple[Row, Found]]:
    """The videos below a folder, or the samples of the tars below it, in the order of their names.

    Raises:
        InputError: there is neither or both, two videos share their sidecars' name, or a sidecar is unreadable.
    """
    files = storage.files(folder)
    visible = [name for name in files if not PurePosixPath(name).name.startswith((".", *_JUNK))]
    videos = [name for name in visible if name.lower().endswith(VIDEOS)]
    tars = [name for name in visible if name.lower().endswith(".tar")]
    if bool(videos) == bool(tars):
        what = f"both videos ({videos[0]}) and tars ({tars[0]})" if videos else "no video and no tar"
        raise InputError(
            f"folder {folder} holds {what}; give a folder of videos with sidecars ({', '.join(VIDEOS)}), a folder "
            "of WebDataset tars, or a table (.csv, .jsonl, .parquet)"
        )
    for name in tars:
        yield from read_tar(storage, below(folder, name), str(PurePosixPath(name).with_suffix("")))
    _refuse_shared(folder, videos)
    for name in videos:
        texts = _Texts(*(_sidecar(storage, folder, files, name, ending) for ending in (".txt", ".json")))
        yield _row(below(folder, name), name, texts), found_file(storage, folder, name, files[name])


def read_tar(storage: Storage, place: str, prefix: str) -> Iterator[tuple[Row, Found]]:
    """The samples of one tar that have a video; a sample's id is ``prefix``, a slash and its key.

    Raises:
        InputError: the tar is damaged or unsafe, or a sample has two videos or an unreadable sidecar.
    """
    samples: dict[str, dict[str, Member]] = defaultdict(dict)
    for member in members(storage, place):
        path = PurePosixPath(member.name)
        stem, _, ending = path.name.partition(".")
        samples[str(path.with_name(stem)) if stem else member.name][f".{ending.lower()}"] = member
    for key, parts in samples.items():
        videos = [ending for ending in parts if ending in VIDEOS]
        if len(videos) > 1:
            raise InputError(f"{place}: sample {key!r} has two videos ({', '.join(videos)}); keep one")
        if videos:
            texts = _Texts(*(_packed_text(storage, parts.get(ending)) for ending in (".txt", ".json")))
            member = parts[videos[0]]
            name = f"{prefix}/{key}{videos[0]}"
            yield _row(f"{place}, sample {key!r}", name, texts), found_member(storage, member)


def _row(where: str, name: str, texts: _Texts) -> Row:
    facts = json_object(f"{where}: its .json", texts.facts) if texts.facts is not None else {}
    row = Row.of(where, facts, required=())
    cells, headers = {**row.cells, "clip_id": name}, {**row.headers, "clip_id": "name"}
    if texts.caption is not None and not row.given("Brief Description"):
        cells["Brief Description"] = texts.caption
    return Row(where, cells, headers)


def _sidecar(storage: Storage, folder: str, files: object, name: str, ending: str) -> str | None:
    sidecar = str(PurePosixPath(name).with_suffix(ending))
    assert isinstance(files, dict)
    if sidecar not in files:
        return None
    return _decoded(below(folder, sidecar), storage.read(below(folder, sidecar), MOST_SIDECAR_BYTES))


def _packed_text(storage: Storage, member: Member | None) -> str | None:
    if member is None:
        return None
    if member.num_bytes > MOST_SIDECAR_BYTES:
        raise InputError(f"{member.address}: more than {MOST_SIDECAR_BYTES} bytes, too much for a sidecar")
    with opened(storage, member.address) as parts:
        return _decoded(str(member.address), b"".join(parts))


def _decoded(where: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 text ({error.reason}); save it as UTF-8") from error


def _refuse_shared(folder: str, videos: list[str]) -> None:
    """Two videos that differ in their ending alone would share sidecars."""
    seen: dict[str, str] = {}
    for name in videos:
        stem = str(PurePosixPath(name).with_suffix(""))
        if stem in seen:
            raise InputError(
                f"folder {folder}: {seen[stem]} and {name} share one name but for the ending; rename one"
            )
        seen[stem] = name
