"""Makes work visible all at once: a folder is written aside and renamed, a finished generation of shards replaces
the one before with its manifest last, and only one preparation at a time touches an output.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.records import InputError
from data_prep.shards.files import MANIFEST, SHARDS

ASIDE = ".aside-"
OURS = ("manifest.json", "index.jsonl", "config.yaml", "ledger.parquet", "characters.json", "shard-*.tar")
WORK = ".work"  # analysed clips, so that a re-run does not decode again
NEXT = ".next"  # the generation that is being written


@contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """A new folder to write into, which is at ``final``, on disk and complete, when the block ends without error.

    When another process has put it there first, ours is thrown away.
    """
    aside = final.with_name(f"{ASIDE}{final.name}-{os.getpid()}")
    aside.mkdir(parents=True)
    try:
        yield aside
        sync(aside)
        if not final.is_dir():
            aside.rename(final)
            _sync_one(final.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def sole_user(output: Path) -> Iterator[None]:
    """Hold the output folder for this process; the lock dies with the process.

    Raises:
        InputError: the output cannot be a folder of ours, holds somebody else's files under the names that we
            would write, or another preparation is at work in it.
    """
    work = output / WORK
    _refuse_foreign(output)
    try:
        work.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError, FileNotFoundError) as error:
        raise InputError(
            f"output {str(output)!r} cannot be made a folder: {error.strerror}; give one that can be made, and "
            "that you may write to"
        ) from error
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"output {str(output)!r}: another castbank prepare is writing here; wait for it or choose another"
            ) from None
        clear(output)
        yield


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
    """Remove what a killed run may have left half-written."""
    for left in (output / WORK).glob(f"{ASIDE}*"):
        shutil.rmtree(left, ignore_errors=True)
    for file in [*(output / WORK).glob("*.stderr"), *(output / WORK).glob(".files.json.*")]:
        file.unlink()
    shutil.rmtree(output / NEXT, ignore_errors=True)


def publish(output: Path) -> None:
    """Make the complete generation in ``.next`` the output's content.

    The old manifest goes first, so that the folder reads as unfinished until the new one is there; shards of the
    old generation that the new one has not are removed, by their name, and nothing else in the folder is touched.
    Killed in between, the next run publishes again.
    """
    new = output / NEXT
    sync(new)
    (output / MANIFEST).unlink(missing_ok=True)
    arriving = {path.relative_to(new) for path in new.rglob("*") if path.is_file()}
    for old in output.glob(SHARDS):
        if old.relative_to(output) not in arriving:
            old.unlink()
    for place in sorted(arriving - {Path(MANIFEST)}):
        (output / place).parent.mkdir(exist_ok=True)
        (new / place).replace(output / place)
    _sync_one(output)
    (new / MANIFEST).replace(output / MANIFEST)
    _sync_one(output)
    shutil.rmtree(new)


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
