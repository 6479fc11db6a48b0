"""Checkpoints that are whole or not there: written by all ranks, hashed, and committed by one last small file.

``step-00000040/`` is a checkpoint if and only if its ``complete.json`` exists; that file names every other one
with its sha256, so that damage is found before anything is loaded and the checkpoint before it is taken.

Training waits only while a rank's share is copied in memory; a thread writes, hashes and commits it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data_prep.records import InputError
from pipeline.config import CheckpointConfig
from pipeline.ranks.rank import LeaveError

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
    """Where a training stands: updates done, samples of the stream used, and how good it is where that is known."""

    step: int
    consumed: int
    score: float | None = None


Copy = Callable[[Path], Callable[[], None]]
"""Copies a rank's share into memory that training does not change; the answer writes it below the folder."""


@dataclass(frozen=True)
class Peers:
    """The ranks as one of them sees them. behind: a gather for the writing thread; None: writing is waited for."""

    index: int
    world: int
    gather: Gather
    behind: Gather | None = None


class Checkpoints:
    """The checkpoints of one run, as one rank sees them; at most one is being written at a time."""

    def __init__(self, folder: Path, config: CheckpointConfig, peers: Peers) -> None:
        self._folder, self._config, self._peers = folder, config, peers
        self._index, self._world, self._gather = peers.index, peers.world, peers.gather
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[Path] | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Commit what is being written also where the training has failed, whose reason then counts."""
        with contextlib.suppress(*((Exception,) if kind else ())):
            self.wait()
        self._thread.shutdown()

    def write(self, progress: Progress, copy: Copy, allowed: Callable[[], None] = lambda: None) -> list[Path]:
        """Begin one checkpoint, after the one before is committed; called by every rank.

        Args:
            progress: where the training stands.
            copy: of a rank's share, made now; training goes on while it is written.
            allowed: asked before the commit; does not come back, or raises, where there must be none.

        Returns:
            What was committed since the last call.

        Raises:
            As ``wait``.
        """
        done = self.wait()
        folder = self._folder / f"step-{progress.step:08d}"
        if self._index == 0:
            _remove(folder)  # of an attempt that was killed, or found damaged
            folder.mkdir(parents=True)
        self._gather(None)
        write, gather = copy(folder), self._peers.behind or self._gather
        finish = partial(self._finish, folder, write, allowed, gather)
        self._writing = self._thread.submit(finish, progress)
        return done if self._peers.behind else done + self.wait()

    def wait(self) -> list[Path]:
        """Return when nothing is being written; what was committed since the last call.

        Raises:
            LeaveError: it could not be written; which rank, and why.
        """
        writing, self._writing = self._writing, None
        return [writing.result()] if writing is not None else []

    def done(self) -> list[Path]:
        """What was committed since the last call, without waiting; raises as ``wait``."""
        return self.wait() if self._writing is not None and self._writing.done() else []

    def _finish(
        self,
        folder: Path,
        write: Callable[[], None],
        allowed: Callable[[], None],
        gather: Gather,
        progress: Progress,
    ) -> Path:
        """Everything from the copy to the commit; no rank goes further than all can."""

        def share() -> dict[str, str]:
            mine = _files(folder)[self._index :: self._world]
            to_disk(folder / name for name in mine)
            return _hashes(folder, mine)

        def commit() -> None:
            to_disk([*filter(Path.is_dir, folder.rglob("*")), self._folder])
            allowed()
            record = {**asdict(progress), "world": self._world, "sha256": hashes}
            write_text(folder / COMPLETE, json.dumps(record, indent=1, sort_keys=True))
            self._prune(folder)

        _together(gather, write)
        hashes = {name: value for part in _together(gather, share) for name, value in part.items()}
        _together(gather, commit if self._index == 0 else lambda: None)
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
        """Keep the last ones up to the one just written, and the best of those before; a later one was passed over
        as damaged, and one that is not committed is of an attempt that was killed."""
        found = [path for path in committed(self._folder) if path.name <= written.name]
        kept = found[: self._config.keep_last]
        kept += self._best(found[self._config.keep_last :])[: self._config.keep_best]
        for path in sorted(self._folder.glob("step-*")):
            if path not in kept:
                _remove(path)

    def _best(self, found: Sequence[Path]) -> list[Path]:
        """Those with a score, best first; of equals the later."""
        sign = 1.0 if self._config.best_is == "least" else -1.0
        scores = {path: _score(path) for path in found}
        judged = [path for path in found if scores[path] is not None]
        return sorted(judged, key=lambda path: sign * (scores[path] or 0.0))


def _together(gather: Gather, work: Callable[[], Any]) -> list[Any]:
    """What every rank's ``work`` gives, in rank order.

    Raises:
        LeaveError: that of a peer failed; the one that failed raises its own, an OSError as this.
    """
    problem: Exception | None = None
    answer: Any = None
    try:
        answer = work()
    except OSError as error:  # a full disk, a folder that has gone
        problem = error
    except Exception as error:
        gather((None, repr(error)))
        raise
    answers = gather((answer, "" if problem is None else str(problem)))
    failed = [f"rank {rank}: {why}" for rank, (_, why) in enumerate(answers) if why]
    if failed:
        raise LeaveError(
            f"the checkpoint cannot be written ({'; '.join(failed)}); the one before is still there"
        ) from problem
    return [given for given, _ in answers]


def _score(path: Path) -> float | None:
    try:
        score: float | None = json.loads((path / COMPLETE).read_text(encoding="utf-8")).get("score")
    except (OSError, ValueError):
        return None
    return score


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
