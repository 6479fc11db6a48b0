"""Checkpoints that are whole or not there: written by all ranks, hashed, and committed by one last small file.

``step-00000040/`` is a checkpoint if and only if its ``complete.json`` exists; that file names every other one
with its sha256, so that damage is found before anything is loaded and the checkpoint before it is taken.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_prep.records import InputError

COMPLETE = "complete.json"

Gather = Callable[[Any], list[Any]]
"""Every rank gives an object and gets the objects of all, in rank order; so it is also a barrier."""


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint. step: updates done; consumed: samples of the stream used; world: ranks it has."""

    folder: Path
    step: int
    consumed: int
    world: int


@dataclass(frozen=True)
class Progress:
    """Where a training stands: updates done, and samples of the stream used."""

    step: int
    consumed: int


class Checkpoints:
    """The checkpoints of one run, as one rank sees them."""

    def __init__(self, folder: Path, keep_last: int, index: int, world: int, gather: Gather) -> None:
        self._folder, self._keep_last = folder, keep_last
        self._index, self._world, self._gather = index, world, gather

    def write(
        self, progress: Progress, save: Callable[[Path], None], allowed: Callable[[], None] = lambda: None
    ) -> Path:
        """Commit one checkpoint; called by every rank.

        Args:
            progress: where the training stands.
            save: writes a rank's share below the folder it gets.
            allowed: asked before the commit; does not come back, or raises, where there must be none.
        """
        folder = self._folder / f"step-{progress.step:08d}"
        if self._index == 0:
            _remove(folder)  # of an attempt that was killed, or found damaged
            folder.mkdir(parents=True)
        self._gather(None)
        save(folder)
        self._gather(None)
        mine = _files(folder)[self._index :: self._world]
        to_disk(folder / name for name in mine)
        hashes = {name: value for part in self._gather(_hashes(folder, mine)) for name, value in part.items()}
        if self._index == 0:
            to_disk([*filter(Path.is_dir, folder.rglob("*")), self._folder])
            allowed()
            record = {**asdict(progress), "world": self._world, "sha256": hashes}
            write_text(folder / COMPLETE, json.dumps(record, indent=1, sort_keys=True))
            self._prune(folder)
        self._gather(None)
        return folder

    def newest(self, on_damage: Callable[[str], None]) -> Checkpoint | None:
        """The newest undamaged checkpoint, the same for every rank; None where there is none at all.

        ``on_damage`` is told, on the first rank, of each one passed over.

        Raises:
            InputError: there are checkpoints and every one is damaged.
        """
        found: Checkpoint | str | None = None
        if self._index == 0:
            try:
                found = newest(self._folder, on_damage)
            except InputError as error:
                found = str(error)
        found = self._gather(found)[0]
        if isinstance(found, str):
            raise InputError(found)
        return found

    def _prune(self, written: Path) -> None:
        """Keep the last ones up to the one just written; a later one was passed over as damaged, and one that is
        not committed is of an attempt that was killed."""
        kept = [path for path in committed(self._folder) if path.name <= written.name][: self._keep_last]
        for path in sorted(self._folder.glob("step-*")):
            if path not in kept:
                _remove(path)


def committed(folder: Path) -> list[Path]:
    """Committed checkpoints of a run, newest first, damaged ones included."""
    return sorted((path.parent for path in folder.glob(f"step-*/{COMPLETE}")), reverse=True)


def newest(folder: Path, on_damage: Callable[[str], None]) -> Checkpoint | None:
    """The newest undamaged checkpoint below ``folder``, or None where there is none at all.

    Raises:
        InputError: there are some and every one is damaged.
    """
    candidates = committed(folder)
    for path in candidates:
        try:
            record = json.loads((path / COMPLETE).read_text(encoding="utf-8"))
            expected, made = (
                record["sha256"],
                Checkpoint(path, *(record[k] for k in ("step", "consumed", "world"))),
            )
        except (ValueError, KeyError, TypeError) as error:
            on_damage(f"checkpoint {path}: {COMPLETE} is damaged ({error!r}); the one before it is taken")
            continue
        present = [name for name in expected if (path / name).is_file()]
        actual = _hashes(path, present)
        damaged = sorted(name for name in expected if actual.get(name) != expected[name])
        if not damaged:
            return made
        on_damage(f"checkpoint {path}: {', '.join(damaged)} damaged or missing; the one before it is taken")
    if candidates:
        raise InputError(
            f"checkpoints in {str(folder)!r}: all {len(candidates)} are damaged; restore one from a copy, or "
            "delete the folder to train from the beginning"
        )
    return None


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all: aside, to the disk, renamed."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(path)
    to_disk([path.parent])


def to_disk(paths: Iterable[Path]) -> None:
    """Return when files' contents, and folders' lists of names, would survive a loss of power."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _hashes(folder: Path, names: list[str]) -> dict[str, str]:
    hashes = {}
    for name in names:
        with (folder / name).open("rb") as stream:
            hashes[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return hashes


def _remove(folder: Path) -> None:
    (folder / COMPLETE).unlink(missing_ok=True)  # first: half of a checkpoint must not look like one
    if folder.exists():
        shutil.rmtree(folder)
