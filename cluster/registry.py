"""The jobs that this user has submitted from this machine: one small file each, named by the job's id."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path

from cluster.job_folder import JobFolder, write_atomic
from cluster.spec import JobError

MAX_SLUG = 40


def home() -> Path:
    """The per-user folder of castbank: $CASTBANK_HOME, else ~/.cache/castbank."""
    return Path(os.environ.get("CASTBANK_HOME") or "~/.cache/castbank").expanduser().resolve()


def holds(folder: Path, job_id: str) -> bool:
    """Whether a folder still holds a job, and not a later one, or nothing, or nothing that this user may read."""
    with contextlib.suppress(JobError):
        return JobFolder(folder).spec().id == job_id
    return False


class Registry:
    """Job ids and where their folders are."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def new_id(self, name: str) -> str:
        """An id that no job has: the name as far as every scheduler takes it, and four random hex digits."""
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:MAX_SLUG].strip("-") or "job"
        while True:
            made = f"{slug}-{secrets.token_hex(2)}"
            if not (self._folder / made).exists():
                return made

    def add(self, job_id: str, folder: Path) -> None:
        """Remember a job."""
        write_atomic(self._folder / job_id, str(folder))

    def all(self) -> dict[str, Path]:
        """Every job's folder by id, newest first."""
        found: list[tuple[float, str, Path]] = []
        for path in self._folder.glob("[!.]*"):
            with contextlib.suppress(OSError):
                found.append((path.stat().st_mtime, path.name, Path(path.read_text(encoding="utf-8"))))
        return {name: folder for _, name, folder in sorted(found, reverse=True)}

    def find(self, asked: str) -> Path:
        """The folder of a job, by its id, a beginning of it that only one has, or the folder itself.

        Raises:
            JobError: no job is meant, or several could be.
        """
        jobs = self.all()
        if asked in jobs:
            return jobs[asked]
        matching = [job_id for job_id in jobs if job_id.startswith(asked) and holds(jobs[job_id], job_id)]
        if len(matching) == 1:
            return jobs[matching[0]]
        if matching:
            raise JobError(f"job {asked!r} could be {', '.join(matching[:5])}; give more of its id")
        if Path(asked).is_dir():
            return Path(asked).resolve()
        raise JobError(f"job {asked!r}: no such id or folder; castbank jobs lists what was submitted here")
