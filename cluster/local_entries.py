"""One job in this machine's queue, as its file says: what it needs, who runs it, what became of earlier starts."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cluster.registry import home

STATE, STARTTIME = 0, 19  # fields 3 and 22 of /proc/PID/stat, counted after the command's name


@dataclass(frozen=True)
class Process:
    """A process that no other is taken for. started: boot and clock tick, which no change of the time moves."""

    pid: int
    started: str

    def alive(self) -> bool:
        """Whether it is there; one that has ended and is not yet reaped is not."""
        return bool(self.started) and started(self.pid) == self.started


@dataclass(frozen=True)
class Entry:
    """One job in the queue.

    supervisor: that of its last start, None before the first. gpus: those it was given. awaits: an earlier
    submission's supervisor in the same folder, which must have ended first; replaces: that submission's id.
    num_ended: attempts that had ended when it was started. starts: in a row, that came to nothing.
    """

    id: str
    folder: Path
    host: str
    num_cpus: int
    num_gpus: int
    environment: dict[str, str]
    after: tuple[Path, ...] = ()
    supervisor: Process | None = None
    gpus: tuple[int, ...] = ()
    awaits: Process | None = None
    replaces: str = ""
    num_ended: int = 0
    starts: int = 0
    started_s: float = 0.0  # Unix time of the last start
    not_before_s: float = 0.0  # Unix time before which it is not started again
    missing_s: float = 0.0  # Unix time since which its folder is missing; 0: it is there

    def alive(self) -> bool:
        """Whether its supervisor is there."""
        return self.supervisor is not None and self.supervisor.alive()

    def holds(self) -> bool:
        """Whether a process is there for it, be it an earlier submission's, so that its room is taken."""
        return self.alive() or (self.awaits is not None and self.awaits.alive())


def started(pid: int) -> str:
    """Which process has this number now; empty where none has, or one that has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return "" if fields[STATE] in "ZXx" else f"{_boot()} {fields[STARTTIME]}"


def load(path: Path) -> Entry:
    """The entry of a file.

    Raises:
        OSError, ValueError, TypeError, KeyError: the file cannot be read, or another version wrote it.
    """
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for name in ("supervisor", "awaits"):
        record[name] = record[name] and Process(**record[name])
    record |= {"folder": Path(record["folder"]), "after": tuple(map(Path, record["after"]))}
    return Entry(**record | {"gpus": tuple(record["gpus"])})


def save(path: Path, entry: Entry) -> Entry:
    """Write the entry so that nobody reads half of it, and nobody but its owner reads it at all."""
    text = json.dumps(asdict(entry), default=str)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)  # it may be another's, with other permissions
    with os.fdopen(
        os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(path)
    return entry


def queue_folder() -> Path:
    """Where this machine's entries lie; the home folder of a user may be that of many machines."""
    return home() / "queue" / os.uname().nodename


def elsewhere() -> dict[str, Path]:
    """The entries of other machines that share the home folder, by the job's id."""
    own = queue_folder()
    return {id_of(path): path for path in own.parent.glob("*/[!.]*.json") if path.parent != own}


def id_of(path: Path) -> str:
    """The job that an entry's file is for; the name is PRIORITY-TIME-FOLDER-ID."""
    return path.stem.split("-", 3)[-1]


@cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
