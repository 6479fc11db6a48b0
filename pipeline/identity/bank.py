"""The identity bank: for each character its tokens, the references they came from, and what may be done with them.

On disk it is one safetensors file per character (texts in its header) and ``manifest.json``, which is written last
and names every file with its sha256: until then the bank that was there stays as it was.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import torch
from safetensors import safe_open
from safetensors.torch import save

from data_prep.records import Consent, InputError

SCHEMA = 1
MANIFEST = "manifest.json"
TEXTS = ("name", "description", "pack", "consent", "licence", "provenance")


@dataclass(frozen=True, eq=False)
class BankEntry:
    """One character. tokens: f32[K,C] without a slot; references: f32[R,D] unit recogniser embeddings.

    description is the sentence that stands for it in a prompt; pack the face pack of the embeddings; provenance
    the samples, clips or files that the references came from.
    """

    name: str
    tokens: torch.Tensor
    references: torch.Tensor
    description: str = ""
    pack: str = ""
    consent: Consent = "unknown"
    licence: str = ""
    provenance: tuple[str, ...] = ()


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

    def save(self, folder: Path) -> None:
        """Replaces the bank in ``folder``; a crash leaves the old one or the new one."""
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        for entry in self.entries.values():
            content = _to_bytes(entry)
            digest = hashlib.sha256(content).hexdigest()
            file = f"{quote(entry.name, safe='')}-{digest[:12]}.safetensors"
            _write(folder / file, content)
            rows.append({"name": entry.name, "file": file, "sha256": digest, "consent": entry.consent})
        manifest = json.dumps({"schema": SCHEMA, "characters": rows}, indent=2, ensure_ascii=False)
        _write(folder / MANIFEST, manifest.encode())
        named = {str(row["file"]) for row in rows}
        for stale in folder.glob("*.safetensors"):
            if stale.name not in named:
                stale.unlink()

    @classmethod
    def load(cls, folder: Path) -> IdentityBank:
        """Reads and checks a bank; raises InputError for none, another schema, or a file that is not as written."""
        path = folder / MANIFEST
        if not path.is_file():
            raise InputError(
                f"{folder}: no identity bank here (no {MANIFEST}); export a run, then give its bank"
            )
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest.get("schema") != SCHEMA:
            raise InputError(
                f"{path}: schema {manifest.get('schema')!r}, this version reads {SCHEMA}; export again"
            )
        return cls(_read(folder / row["file"], row["sha256"]) for row in manifest["characters"])


def _to_bytes(entry: BankEntry) -> bytes:
    texts = {name: getattr(entry, name) for name in TEXTS}
    header = {
        "character": json.dumps(texts, ensure_ascii=False)
    }  # one key: safetensors writes several in any order
    tensors = {"tokens": entry.tokens, "references": entry.references}
    return save({name: t.detach().cpu().float().contiguous() for name, t in tensors.items()}, header)


def _read(path: Path, digest: str) -> BankEntry:
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise InputError(f"{path}: missing, or not as its manifest says; export the bank again")
    with safe_open(path, "pt") as file:
        texts = json.loads(file.metadata()["character"])
        texts["provenance"] = tuple(texts["provenance"])
        return BankEntry(tokens=file.get_tensor("tokens"), references=file.get_tensor("references"), **texts)


def _write(path: Path, content: bytes) -> None:
    """Aside, to the disk, then under its name."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
