"""Makes work visible all at once: a folder is written aside and renamed, and a finished generation of shards
replaces the one before with its manifest last. An output is held by one preparation alone, or by several that each
analyse a part of the clips; what each has not finished lies on a desk of its own, which no other part touches.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from data_prep.records import InputError
from data_prep.shards.files import MANIFEST, SHARDS

ASIDE = ".aside-"
OURS = (
    "manifest.json",
    "index.jsonl",
    "lineage.jsonl",
    "config.yaml",
    "ledger.parquet",
    "ledger.html",
    "stopped",
    "characters.json",
    "calibration.json",
    *SHARDS,
)
WORK = ".work"  # analysed clips, so that a re-run does not decode again
STOPPED = "stopped"  # the ledger of a run that was stopped because too much failed, until one is not
NEXT = ".next"  # the generation that is being written: what it has of its own
READY = ".ready"  # the same when it is whole; whatever happens now, it becomes the output's content
POLL_S = 0.2
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def whole_folder(final: Path, desk: Path) -> Iterator[Path]:
    """A new folder on ``desk`` to write into, which is at ``final``, on disk and complete, when the block ends
    without error.

    When another process has put it there first, on whatever machine, ours is thrown away.
    """
    aside = desk / f"{final.name}-{uuid.uuid4().hex[:8]}"
    aside.mkdir(parents=True)
    try:
        yield aside
        sync(aside)
        try:
            aside.rename(final)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        else:
            _sync_one(final.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def sole_user(output: Path, wait_s: float = 0.0) -> Iterator[Path]:
    """Hold the output folder for this process alone and yield its desk; the lock dies with the process.

    Args:
        output: the folder.
        wait_s: how long to wait for whoever holds it.

    Raises:
        InputError: the output cannot be a folder of ours, holds somebody else's files under the names that we
            would write, or another preparation, whole or in parts, is at work in it.
    """
    with _held(output, fcntl.LOCK_EX, wait_s):
        clear(output)
        with _desk(output) as desk:
            yield desk


@contextmanager
def one_of_several(output: Path, wait_s: float = 0.0) -> Iterator[Path]:
    """Hold the output folder together with others that do the same and yield this one's desk.

    Raises:
        InputError: as for ``sole_user``, where a whole preparation is at work.
    """
    with _held(output, fcntl.LOCK_SH, wait_s), _desk(output) as desk:
        yield desk


@contextmanager
def full_disk_is_said(output: Path) -> Iterator[None]:
    """Turns the failure of a full disk into an InputError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"output {str(output)!r}: the disk is full; make room or choose another output, then run the same "
            "command again: it goes on where it stopped, and nothing half-written stands under a final name"
        ) from error


@contextmanager
def _held(output: Path, how: int, wait_s: float) -> Iterator[None]:
    work = output / WORK
    _refuse_foreign(output)
    try:
        work.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError, FileNotFoundError) as error:
        raise InputError(
            f"output {str(output)!r} cannot be made a folder: {error.strerror}; give one that can be made, and "
            "that you may write to"
        ) from error
    with (work / "lock").open(
        "a+"
    ) as lock:  # NFS shares a lock of a readable file, and owns one of a writable
        until_s = time.monotonic() + wait_s
        while not (taken := _taken(lock, how, output)) and time.monotonic() < until_s:
            time.sleep(POLL_S)
        if not taken:
            raise InputError(f"output {str(output)!r}: {_who_is_there(lock, how, output)}")
        yield


def _taken(lock: IO[str], how: int, output: Path) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise InputError(
            f"output {str(output)!r}: its file system keeps no locks ({error.strerror}); mount it with them "
            "(Lustre: -o flock; NFS: without nolock), or choose another output"
        ) from error
    return True


def _who_is_there(lock: IO[str], how: int, output: Path) -> str:
    if how == fcntl.LOCK_SH:
        return (
            "a castbank prepare without --part is at work here, and analyses every clip itself; wait for it, or "
            "stop it before the parts are started"
        )
    if _taken(lock, fcntl.LOCK_SH, output):  # what can be shared is held by those who share
        return (
            "parts of this preparation are at work here (castbank prepare --part); wait until the last of them has "
            "ended, then run the same command again"
        )
    return "another castbank prepare is writing here; wait for it or choose another"


@contextmanager
def _desk(output: Path) -> Iterator[Path]:
    desk = output / WORK / f"{ASIDE}{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    desk.mkdir()
    try:
        yield desk
    finally:
        _remove(desk)


def _remove(desk: Path) -> None:
    """Remove a desk under another name: a worker that outlives its run, and knows the old one, can no longer put
    under its final name what is half removed."""
    gone = desk.with_name(f"{ASIDE}gone-{uuid.uuid4().hex[:8]}")
    with contextlib.suppress(OSError):
        desk.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _refuse_foreign(output: Path) -> None:
    """A folder that no preparation has worked in may hold anything but files that we would replace."""
    if not output.is_dir() or (output / WORK).is_dir():
        return
    taken = sorted(path.name for pattern in OURS for path in output.glob(pattern))
    if taken:
        raise InputError(
            f"output {str(output)!r} holds {', '.join(taken[:3])}, which castbank did not prepare here and would "
            "replace; give an empty folder, or move those files away"
        )


def clear(output: Path) -> None:
    """Remove what killed runs may have left half-written, and finish what was whole; only for who holds the output
    alone."""
    for left in (output / WORK).glob(f"{ASIDE}*"):
        _remove(left)
    for file in (output / WORK).glob(".files*.json.*"):
        file.unlink()
    shutil.rmtree(output / NEXT, ignore_errors=True)
    if (output / READY).is_dir():
        _move_in(output)


def publish(output: Path) -> None:
    """Make the complete generation in ``.next`` the output's content; shards that its manifest names and ``.next``
    has not stand in the output already, and stay as they are.

    One rename decides. Killed before it, the old generation stands; killed after it, the next run finishes.
    """
    sync(output / NEXT)
    (output / NEXT).rename(output / READY)
    _sync_one(output)
    _move_in(output)


def _move_in(output: Path) -> None:
    """The old manifest goes first and the new one comes last, so that in between the folder reads as unfinished;
    shards that the new manifest does not name are removed, and nothing else in the folder is touched."""
    new = output / READY
    if (new / MANIFEST).is_file():  # else it was the last to go
        named = {
            shard["name"] for shard in json.loads((new / MANIFEST).read_text(encoding="utf-8"))["shards"]
        }
        (output / MANIFEST).unlink(missing_ok=True)
        for old in (path for pattern in SHARDS for path in output.glob(pattern)):
            if old.name not in named:
                old.unlink()
        for place in sorted(path.relative_to(new) for path in new.rglob("*") if path.is_file()):
            if place != Path(MANIFEST):
                (output / place).parent.mkdir(exist_ok=True)
                (new / place).replace(output / place)
        _sync_one(output)
        (new / MANIFEST).replace(output / MANIFEST)
        _sync_one(output)
    shutil.rmtree(new)
    shutil.rmtree(output / STOPPED, ignore_errors=True)


def sync(folder: Path) -> None:
    """Flush every file of a folder and the folder itself to the disk."""
    for path in sorted(folder.rglob("*"), reverse=True):
        _sync_one(path)
    _sync_one(folder)


def _sync_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
