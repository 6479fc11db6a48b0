"""How the pods of one training find each other and agree, through small files in ``job/gang`` that all of them see.

    member-K-IDENTITY   pod K is there; IDENTITY is new each time a pod starts
    gang.json           written by pod 0: the identities that make up an attempt, and its token
    end-TOKEN-K.json    how the processes of pod K ended
    verdict.json        written by pod 0: what follows, with the exit code for the other pods

A pod that is replaced while its peers go on finds no place in the gang; they see its file, leave, and all gather
anew. Only names are listed while an attempt runs: one question to the file system every few seconds and pod.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.job_folder import JobFolder, write_atomic

FRESH_S = (
    120.0  # a waiting pod touches its file every second; clients of a file server may see that a minute late
)


@dataclass(frozen=True)
class End:
    """How the processes of one pod ended. kind: ok, failed, hung or preempted, or gone: its peers had ended,
    which its attempt calls lost."""

    code: int
    kind: str
    reason: str
    rank: int
    host: str
    at_s: float


@dataclass(frozen=True)
class Decision:
    """What pod 0 made of it: the exit code of the others, after so many seconds."""

    token: str
    code: int
    wait_s: float


class Gang:
    """One pod's view of the others."""

    def __init__(self, job_folder: Path, index: int, size: int) -> None:
        self._folder = JobFolder(job_folder).job / "gang"
        self._index, self._size = index, size
        self._identity = secrets.token_hex(6)
        self._own = self._folder / f"member-{index}-{self._identity}"
        self._members: tuple[str, ...] = ()
        self.token = ""

    def join(self) -> None:
        """Be seen, or still be seen."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._own.touch()

    def leave(self) -> None:
        """Be there no longer."""
        self._own.unlink(missing_ok=True)

    def gather(self) -> tuple[str, ...]:
        """For pod 0: the identities of all pods, once all are there and none was in the last gang; else nothing."""
        last = set(self._json("gang.json").get("members", ()))
        now_s = self._own.stat().st_mtime  # by the clock of the file server, as all of them
        newest: dict[int, tuple[float, str]] = {}
        for index, identity in self._present():
            with contextlib.suppress(FileNotFoundError):
                seen_s = (self._folder / f"member-{index}-{identity}").stat().st_mtime
                if identity not in last and now_s - seen_s < FRESH_S:
                    newest[index] = max(newest.get(index, (0.0, "")), (seen_s, identity))
        newest[self._index] = (now_s, self._identity)
        if set(newest) != set(range(self._size)):
            return ()
        return tuple(newest[index][1] for index in range(self._size))

    def seal(self, members: tuple[str, ...], token: str) -> None:
        """For pod 0: let these pods begin, and forget all earlier ones."""
        last = set(self._json("gang.json").get("members", ())) - set(members)
        write_atomic(self._folder / "gang.json", json.dumps({"members": members, "token": token}))
        self._members, self.token = members, token
        for path in [*self._folder.glob("end-*.json"), *self._folder.glob("member-*")]:
            if path.name.startswith("end-") or path.name.rpartition("-")[2] in last:
                path.unlink(missing_ok=True)

    def sealed(self) -> bool:
        """For the others: whether an attempt has begun that this pod is a member of."""
        found = self._json("gang.json")
        members = tuple(found.get("members", ()))
        if len(members) != self._size or members[self._index] != self._identity:
            return False
        self._members, self.token = members, found["token"]
        return True

    def replaced(self) -> int | None:
        """The index of a pod that is there and not a member: a new one, in the place of one that is gone."""
        return next((index for index, identity in self._present() if identity not in self._members), None)

    def report(self, end: End) -> None:
        """Tell the others how this pod's processes ended."""
        write_atomic(self._folder / f"end-{self.token}-{self._index}.json", json.dumps(asdict(end)))

    def reports(self) -> Mapping[int, End]:
        """How the pods of this attempt ended, as far as they have."""
        found = {}
        for index in range(self._size):
            values = self._json(f"end-{self.token}-{index}.json")
            if values:
                found[index] = End(**values)
        return found

    def num_reports(self) -> int:
        """How many have ended, for less than reading what they say."""
        return sum(1 for _ in self._folder.glob(f"end-{self.token}-*.json"))

    def has_reported(self, index: int) -> bool:
        """Whether the processes of a pod have ended, by its own word."""
        return (self._folder / f"end-{self.token}-{index}.json").exists()

    def decide(self, decision: Decision) -> None:
        """For pod 0: tell the others what follows."""
        write_atomic(self._folder / "verdict.json", json.dumps(asdict(decision)))

    def decision(self) -> Decision | None:
        """What pod 0 has decided about this attempt."""
        values = self._json("verdict.json")
        return Decision(**values) if values and values["token"] == self.token else None

    def _present(self) -> list[tuple[int, str]]:
        found = []
        for path in self._folder.glob("member-*-*"):
            _, index, identity = path.name.split("-")
            if int(index) < self._size:
                found.append((int(index), identity))
        return found

    def _json(self, name: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self._folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return found
