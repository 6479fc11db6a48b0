"""The identity bank: for each character its tokens, the references they came from, and what may be done with them.

On disk it is one safetensors file per character (texts in its header) and ``manifest.json``, which is written last
and names every file with its sha256: until then the bank that was there stays as it was.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save

from data_prep.records import U8, Consent, InputError
from pipeline.training.checkpoints import to_disk

SCHEMA = 4
READ = (1, 2, 3, SCHEMA)  # 1: without ``network``; 1 and 2: without pictures; before 4: without ``locked``
MANIFEST = "manifest.json"
TENSORS = ("tokens", "references", "picture", "landmarks")
TEXTS = ("name", "description", "pack", "consent", "licence", "provenance", "network", "locked")
OURS = re.compile(rf".+-[0-9a-f]{{12}}\.safetensors(\.\d+)?|\.{re.escape(MANIFEST)}\.\d+")
PLACES = (
    "",
    "bank",
    "export/bank",
)  # of a bank in a folder that a person names: the bank's, an export's, a run's


@dataclass(frozen=True, eq=False)
class BankEntry:
    """One character. tokens: f32[K,C] without a slot; references: f32[R,D] unit recogniser embeddings.

    description is the sentence that stands for it in a prompt; pack the face pack of the embeddings; provenance
    the samples, clips or files that the references came from; network the fingerprint of the encoder that made the
    tokens, which mean nothing to another one; picture u8[112,112,3] RGB of one reference, or None, and landmarks
    f32[5,2] in its pixels, where the network has a low-frequency path, which reads them, else None; locked: whether
    later training kept the tokens as they were and taught the network, whose fingerprint stands here, to read them.
    """

    name: str
    tokens: torch.Tensor
    references: torch.Tensor
    description: str = ""
    pack: str = ""
    consent: Consent = "unknown"
    licence: str = ""
    provenance: tuple[str, ...] = ()
    network: str = ""
    picture: torch.Tensor | None = None
    landmarks: torch.Tensor | None = None
    locked: bool = False


@dataclass(frozen=True, eq=False)
class CastPictures:
    """One picture of each of a cast by slot: crops u8[N,112,112,3] RGB, and landmarks f32[N,5,2] in their pixels:
    eyes, nose, mouth corners, image left first."""

    crops: torch.Tensor
    landmarks: torch.Tensor


class IdentityBank:
    """Characters by name, in the order they were given."""

    def __init__(self, entries: Iterable[BankEntry]) -> None:
        """Raises InputError for a name twice, and for a character who refused."""
        self.entries: dict[str, BankEntry] = {}
        for entry in entries:
            if entry.name in self.entries:
                raise InputError(f"bank: the character {entry.name!r} is there twice; names must differ")
            if entry.consent == "refused":
                raise InputError(f"bank: consent of {entry.name!r} is 'refused'; leave the character out")
            self.entries[entry.name] = entry

    def entry(self, name: str) -> BankEntry:
        """The character of that name; raises InputError with the names that are there."""
        if name not in self.entries:
            near = difflib.get_close_matches(name, self.entries, 1, 0.6)
            known = ", ".join(self.entries) or "nobody"
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(f"cast: {name!r} is not in the bank; {hint}it holds {known}")
        return self.entries[name]

    def cast(self, names: Sequence[str]) -> torch.Tensor:
        """Tokens f32[N,K,C] of a cast by slot; raises InputError for nobody, an unknown or a repeated name."""
        if not names or len(set(names)) < len(names):
            raise InputError(f"cast: {', '.join(names) or 'nobody'}; name each character once, at least one")
        return torch.stack([self.entry(name).tokens for name in names])

    def pictures(self, names: Sequence[str]) -> CastPictures:
        """Of a cast by slot; raises InputError for characters without one, or an unknown name."""
        entries = [self.entry(name) for name in names]
        found = [
            (e.picture, e.landmarks) for e in entries if e.picture is not None and e.landmarks is not None
        ]
        if len(found) < len(entries):
            lacking = ", ".join(e.name for e in entries if e.picture is None or e.landmarks is None)
            raise InputError(
                f"cast: the bank has no picture of {lacking}, which this model reads beside the tokens "
                "(model.identity.low_frequency); take the bank of a run that was trained with it"
            )
        crops, landmarks = zip(*found, strict=True)
        return CastPictures(torch.stack(crops), torch.stack(landmarks))

    def faces(self, names: Sequence[str]) -> U8 | None:
        """A picture u8[N,112,112,3] RGB of each of a cast by slot, or None where there is none of somebody."""
        found = [entry.picture.numpy() for name in names if (entry := self.entry(name)).picture is not None]
        return np.stack(found) if found and len(found) == len(names) else None

    def save(self, folder: Path) -> None:
        """Replaces the bank in ``folder``; a crash leaves the old one or the new one."""
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        for entry in self.entries.values():
            content = _to_bytes(entry)
            digest = hashlib.sha256(content).hexdigest()
            file = f"{_stem(entry.name)}{digest[:12]}.safetensors"
            _write(folder / file, content)
            row = {"name": entry.name, "file": file, "sha256": digest}
            rows.append({**row, "consent": entry.consent, "network": entry.network})
        _commit(folder, SCHEMA, rows)

    @classmethod
    def load(cls, folder: Path) -> IdentityBank:
        """Reads and checks a bank; raises InputError for none, another schema, or a file that is not as written."""
        _, rows = _manifest(folder)
        return cls(_read(folder / row["file"], row["sha256"]) for row in rows)


def find_bank(folder: Path) -> Path:
    """The bank's own folder in that of a bank, an export or a run; raises InputError where there is none."""
    for place in PLACES:
        if (folder / place / MANIFEST).is_file() and "characters" in _json(folder / place / MANIFEST):
            return folder / place
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a bank, an export or a finished run")
    unfinished = (folder / "config.yaml").is_file() and not (folder / "export").is_dir()
    why = "the run is not finished: run castbank train again" if unfinished else "give one that holds a bank"
    raise InputError(f"{folder}: no identity bank in it, nor in its bank/ or export/bank/; {why}")


def remove(folder: Path, names: Sequence[str]) -> int:
    """Take characters out of the bank in ``folder``, whose other entries are neither read nor written.

    The manifest is replaced first and then the files are deleted: what dies in between leaves the old bank, or the
    new one with files that it does not name, which the same call deletes when it is made again.

    Returns:
        How many files were deleted.

    Raises:
        InputError: a name that is not in the bank; then nothing has changed.
    """
    schema, rows = _manifest(folder)
    present = [row["name"] for row in rows]
    stems = tuple(_stem(name) for name in names)
    unfinished = any(path.name.startswith(stems) for path in unnamed(folder, rows))
    missing = [name for name in names if name not in present]
    if missing and not unfinished:
        known = ", ".join(present) or "nobody"
        raise InputError(f"{folder}: {', '.join(missing)} not in the bank; it holds {known}")
    return _commit(folder, schema, [row for row in rows if row["name"] not in names])


def _commit(folder: Path, schema: int, rows: Sequence[Mapping[str, str]]) -> int:
    """The manifest, then away with what it does not name; how many files that were."""
    to_disk([folder])
    manifest = json.dumps({"schema": schema, "characters": rows}, indent=2, ensure_ascii=False)
    _write(folder / MANIFEST, manifest.encode())
    to_disk([folder])
    found = unnamed(folder, rows)
    for path in found:
        path.unlink()
    to_disk([folder])
    return len(found)


def unnamed(folder: Path, rows: Sequence[Mapping[str, str]]) -> list[Path]:
    """Files of characters that a manifest with these rows does not name, and what ``_write`` did not finish;
    nothing that could be another's is among them."""
    named = {row["file"] for row in rows}
    return [path for path in folder.iterdir() if OURS.fullmatch(path.name) and path.name not in named]


def _manifest(folder: Path) -> tuple[int, list[dict[str, str]]]:
    """Schema and rows; raises InputError for none, or for another schema."""
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder}: no identity bank here (no {MANIFEST}); export a run, then give its bank")
    manifest = _json(path)
    if manifest.get("schema") not in READ or "characters" not in manifest:
        raise InputError(
            f"{path}: schema {manifest.get('schema')!r}, this version reads {SCHEMA}; export again"
        )
    return manifest["schema"], manifest["characters"]


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); export the bank again") from error
    return content if isinstance(content, dict) else {}


def _stem(name: str) -> str:
    """What the file of a character begins with."""
    return f"{quote(name, safe='')}-"


def _to_bytes(entry: BankEntry) -> bytes:
    texts = {name: getattr(entry, name) for name in TEXTS}
    header = {
        "character": json.dumps(texts, ensure_ascii=False)
    }  # one key: safetensors writes several in any order
    tensors = {"tokens": entry.tokens.float(), "references": entry.references.float()}
    for name, value in (("picture", entry.picture), ("landmarks", entry.landmarks)):
        if value is not None:
            tensors[name] = value
    return save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, header)


def _read(path: Path, digest: str) -> BankEntry:
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise InputError(f"{path}: missing, or not as its manifest says; export the bank again")
    with safe_open(path, "pt") as file:
        texts = json.loads(file.metadata()["character"])
        texts["provenance"] = tuple(texts["provenance"])
        there = file.keys()
        tensors = {name: file.get_tensor(name) for name in TENSORS if name in there}
        return BankEntry(**tensors, **texts)


def _write(path: Path, content: bytes) -> None:
    """Aside, to the disk, then under its name."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
