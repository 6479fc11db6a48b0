"""What a job leaves in ``FOLDER/job``: written by its submitter, its supervisor and its processes, read by all.

spec.json        the resolved job                         script          what the scheduler was given
submitted.json   place, scheduler's id, time              code/           the snapshot of the code
attempts.jsonl   one line at the start and end of each    log.txt         supervisor and first process
attempt          token of the attempt that may write      logs/           rank-K.log of every process
outcome.json     written last: how the job ended          heartbeats/     rank-K.json of every rank
cancelled        its owner wants it to end                stop            its ranks are to checkpoint and end
forgiven         attempts whose failures no longer count  code.json       what the snapshot was made of
world            how many ranks an attempt began with     failed_rank.json  which of them failed first
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.spec import JobError, JobSpec, Place, State, from_json, to_json

JOB = "job"
ENV_FOLDER, ENV_TOKEN = "CASTBANK_JOB", "CASTBANK_ATTEMPT"  # what a job's processes know of it


@dataclass(frozen=True)
class Submitted:
    """That a job was handed over. scheduler_id: what its scheduler calls it."""

    place: Place
    scheduler_id: str
    at_s: float  # Unix time


@dataclass(frozen=True)
class Outcome:
    """How a job ended, once it has."""

    state: State
    exit_code: int
    reason: str
    at_s: float  # Unix time


@dataclass(frozen=True)
class Attempt:
    """One attempt at the job. end_s is None, and the rest empty, while it runs or where nobody saw it end.

    kind: ok, failed, hung, preempted, or lost where its supervisor did not see its end. step: the last that any
    rank had reported, 0 without ranks. stopped_s: from the request to stop to the end of every process, None where
    there was none. failed_rank, failed_host: whose failure says most, and where it ran.
    """

    number: int
    token: str
    host: str
    scheduler_id: str
    start_s: float
    end_s: float | None = None
    exit_code: int | None = None
    kind: str = ""
    reason: str = ""
    step: int = 0
    stopped_s: float | None = None
    failed_rank: int | None = None
    failed_host: str = ""


class JobFolder:
    """The places of one job; see the module's text."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.job = folder / JOB

    @property
    def script(self) -> Path:
        """What the scheduler was given."""
        return self.job / "script"

    @property
    def code(self) -> Path:
        """The snapshot."""
        return self.job / "code"

    @property
    def log(self) -> Path:
        """What the supervisor writes."""
        return self.job / "log.txt"

    @property
    def logs(self) -> Path:
        """What the processes write, a file each."""
        return self.job / "logs"

    @property
    def heartbeats(self) -> Path:
        """The pulse of every rank."""
        return self.job / "heartbeats"

    @property
    def stop(self) -> Path:
        """There where ranks are to checkpoint and end."""
        return self.job / "stop"

    @property
    def cancelled(self) -> Path:
        """There where the owner wants the job to end."""
        return self.job / "cancelled"

    def spec(self) -> JobSpec:
        """The resolved job.

        Raises:
            JobError: the folder holds no job, or cannot be read.
        """
        return from_json(self._read("spec.json"))

    def write_spec(self, spec: JobSpec) -> None:
        """Keep the resolved job."""
        write_atomic(self.job / "spec.json", to_json(spec))

    def submitted(self) -> Submitted | None:
        """That it was handed over; None where it was not."""
        found = self._record("submitted.json")
        return Submitted(**found) if found else None

    def write_submitted(self, place: Place, scheduler_id: str) -> None:
        """Note that it was handed over."""
        write_atomic(
            self.job / "submitted.json", json.dumps(asdict(Submitted(place, scheduler_id, time.time())))
        )

    def outcome(self) -> Outcome | None:
        """How it ended; None while it has not."""
        found = self._record("outcome.json")
        return Outcome(**found) if found else None

    def write_outcome(self, state: State, exit_code: int, reason: str) -> None:
        """Commit the job's end."""
        outcome = Outcome(state, exit_code, reason, time.time())
        write_atomic(self.job / "outcome.json", json.dumps(asdict(outcome)))

    def forget_outcome(self) -> None:
        """It has begun again."""
        (self.job / "outcome.json").unlink(missing_ok=True)

    def renew(self) -> None:
        """Forget how it ended and what was asked of it, before it is handed over again."""
        self.forget_outcome()
        for path in (self.stop, self.cancelled):
            path.unlink(missing_ok=True)

    def forgive(self) -> None:
        """Start counting failures anew, when the job's owner asks for it to be tried again."""
        write_atomic(self.job / "forgiven", str(len(self.attempts())))

    def counted(self) -> list[Attempt]:
        """The attempts since the owner last asked for the job to be tried."""
        path = self.job / "forgiven"
        return self.attempts()[int(path.read_text()) if path.is_file() else 0 :]

    def attempts(self) -> list[Attempt]:
        """Every attempt, oldest first; one that was cut off has no end."""
        found: dict[int, Attempt] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in (self.job / "attempts.jsonl").read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError, TypeError):  # a torn line, of a machine that went down
                    attempt = Attempt(**json.loads(line))
                    found[attempt.number] = attempt
        return [found[number] for number in sorted(found)]

    def note_attempt(self, attempt: Attempt) -> None:
        """Append the attempt as it stands now."""
        line = json.dumps(asdict(attempt)).encode() + b"\n"
        with (self.job / "attempts.jsonl").open("a+b") as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                line = line if stream.read() == b"\n" else b"\n" + line  # a torn one takes no other along
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())

    def claim(self, token: str) -> None:
        """Make ``token`` the only attempt whose processes may write results; all others are fenced off."""
        write_atomic(self.job / "attempt", token)

    def holder(self) -> str:
        """The token of the attempt that may write; empty where none has claimed."""
        with contextlib.suppress(FileNotFoundError):
            return (self.job / "attempt").read_text(encoding="utf-8")
        return ""

    def overtaken_by(self, token: str) -> str:
        """The token of the attempt that has taken the job over from ``token``'s; empty where none has, or where the
        file system does not answer now, which says nothing about it."""
        with contextlib.suppress(OSError):
            holder = self.holder()
            return "" if holder == token else holder
        return ""

    def note_failed_rank(self, rank: int, host: str, token: str) -> None:
        """Say which rank failed first, where only its launcher on the node knows."""
        text = json.dumps({"rank": rank, "host": host, "token": token})
        write_atomic(self.job / "failed_rank.json", text)

    def failed_rank(self, token: str) -> tuple[int, str] | None:
        """Rank and host that were noted for the attempt of this token; None where none was."""
        found = self._record("failed_rank.json")
        return (found["rank"], found["host"]) if found.get("token") == token else None

    def rank_log(self, rank: int) -> Path:
        """What the process of a rank, or of a part of an array, writes."""
        return self.logs / f"rank-{rank}.log"

    def _record(self, name: str) -> dict[str, Any]:
        try:
            text = (self.job / name).read_text(encoding="utf-8")
        except FileNotFoundError:  # or gone since: a job that is handed over again forgets its outcome
            return {}
        found: dict[str, Any] = json.loads(text)
        return found

    def _read(self, name: str) -> str:
        try:
            return (self.job / name).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise JobError(f"folder {str(self.folder)!r} holds no job ({JOB}/{name} is not there)") from error
        except OSError as error:
            raise JobError(f"{self.job / name} cannot be read: {error.strerror}") from error


def write_atomic(path: Path, text: str) -> None:
    """Write aside, to the disk, and rename into place, so that nobody ever reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}")  # in pods each is pid 1
    with aside.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(path)
