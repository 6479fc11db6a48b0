"""The folder of one training: who may write it, what it was started with, and its metrics file.

``RUN/`` holds ``config.yaml`` (resolved), ``run.json`` (its id and the data it was started on), ``metrics.jsonl``,
``nonfinite.jsonl`` and ``spikes.jsonl`` (steps to look at, with their samples, where there were any),
``initial/`` (the model before the first step, where there is no base), ``checkpoints/``, ``logs/``, ``heartbeats/``
and, at the end, ``export/``. In the folder of a job, ``job/`` is the job's.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from data_prep.records import InputError
from pipeline.ranks.rank import LeaveError
from pipeline.training.checkpoints import committed, write_text

CONFIG, RECORD, CHECKPOINTS, LOCK = "config.yaml", "run.json", "checkpoints", "lock"
NOT_OURS = ("job", "heartbeats", LOCK)  # of a job that the run is part of, of its processes, and of this one
POLL_S = 0.2
FREE = (  # keys and sections that may differ on resume: they change where or how fast, not what is learned
    "run",
    "names.",
    "data.shards",  # may have moved; its index is compared instead
    "data.features",
    "data.cache",
    "data.num_workers",
    "data.prefetch",
    "engine.num_processes",
    "engine.accumulation",
    "engine.activation_checkpointing",
    "engine.offload_",
    "engine.timeout_s",
    "engine.join_timeout_s",
    "checkpoints.",
    "stability.",
    "tracking.",
)


@contextmanager
def claimed(folder: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the run's folder for this process alone; the lock dies with the process.

    Args:
        folder: the run's.
        wait_s: 0, or how long an earlier attempt, which knows that it is over, may take to end.

    Raises:
        InputError: another process holds it, or the path is a file.
        LeaveError: the earlier attempt has not ended in that time.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"run {str(folder)!r} is a file; give a folder, new or of an earlier run")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"run {str(folder)!r} cannot be made ({error.strerror}); give a folder that can"
        ) from error
    with (folder / LOCK).open("a") as stream:
        until_s = time.monotonic() + wait_s
        while not _locked(stream):
            if not wait_s:
                raise InputError(
                    f"run {str(folder)!r}: another castbank train is writing it; wait for it, or give another run="
                )
            if time.monotonic() > until_s:
                raise LeaveError(f"run {str(folder)!r}: an earlier attempt still holds it after {wait_s:g} s")
            time.sleep(POLL_S)
        yield


def _locked(stream: IO[str]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_run(
    folder: Path, config_yaml: str, flat: Mapping[str, str], earlier: Mapping[str, str], data: str
) -> str:
    """Start or continue the run of a claimed folder, and return its id.

    A run that has no checkpoint yet has nothing to lose, and starts anew with whatever it is given.

    Args:
        folder: the run's.
        config_yaml: the resolved configuration, written beside the results.
        flat: the same as dotted keys and text.
        earlier: that of the run found in the folder; empty where there is none.
        data: sha256 of the index of the shards.

    Raises:
        InputError: the run in the folder was started with something else; names the keys.
    """
    record = folder / RECORD
    started = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    problem = _difference(flat, earlier, started["data"], data) if started else ""
    if problem and committed(folder / CHECKPOINTS):
        raise InputError(
            f"run {str(folder)!r} was started with {problem}. Give what it was started with to continue it, or "
            "another run= to start anew"
        )
    if problem or not started:
        _clear(folder)
        started = {"id": uuid.uuid4().hex, "data": data}
    write_text(folder / CONFIG, config_yaml)
    write_text(record, json.dumps(started))
    return str(started["id"])


def _difference(flat: Mapping[str, str], earlier: Mapping[str, str], data_was: str, data: str) -> str:
    """What a run was started with that is no longer so, in words; empty where it can go on."""
    changed = [
        f"{key} (was {earlier.get(key, 'absent')}, is {flat.get(key, 'absent')})"
        for key in sorted(earlier.keys() | flat.keys())
        if earlier.get(key) != flat.get(key) and not key.startswith(FREE)
    ]
    if changed:
        return f"another configuration: {'; '.join(changed)}"
    return "" if data == data_was else "other shards (their index has changed since)"


def _clear(folder: Path) -> None:
    (folder / RECORD).unlink(missing_ok=True)  # first: it says that the rest is there
    for path in folder.iterdir():
        if path.name in NOT_OURS:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


class MetricsFile:
    """A file such as ``metrics.jsonl``: one line of JSON per step, each step once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last_step: int | None = None

    def append(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Add one step; the first call of a resumed run drops the lines that it is about to write again."""
        if self._last_step is None:
            self._drop_from(step)
        self._last_step = step
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, **scalars}) + "\n")

    def _drop_from(self, step: int) -> None:
        if self._path.is_file():
            kept = [line for line in read_metrics(self._path) if line["step"] < step]
            write_text(self._path, "".join(json.dumps(line) + "\n" for line in kept))


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a metrics file, a torn last one left out; none where there is no file."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
