"""Where a verb's results go, checked before the work and not after it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from data_prep.records import InputError


def check_folder(option: str, folder: Path) -> None:
    """Raise InputError, which names the option, where ``folder`` is not one and cannot become one."""
    if problem := unwritable(folder):
        raise InputError(f"{option}: {str(folder)!r}: {problem}; give a folder that you may write to")


def check_file(option: str, path: Path, ending: str) -> None:
    """Raise InputError, which names the option, where no file with this ending can be written at ``path``."""
    if path.suffix != ending or path.is_dir():
        raise InputError(f"{option}: {str(path)!r}; give a file name that ends in {ending}")
    check_folder(option, path.parent)


def unwritable(folder: Path) -> str:
    """Why nothing can be written below ``folder``; empty where it can, also where it is still to be made."""
    nearest = existing(folder)
    if not nearest.is_dir():
        return f"{nearest} is not a folder"
    try:
        tempfile.TemporaryFile(dir=nearest).close()  # permission bits do not tell: root, read-only mounts
    except OSError as error:
        return f"{nearest} cannot be written to ({error.strerror})"
    return ""


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    return nearest
