"""The answers so far, in one file of JSON lines, so that nothing is asked and paid for twice.

A line is written, and on disk, before its answer is used; what a kill tears is its last line, which is not read.
Lines without an answer keep what a useless reply has cost.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from dataclasses import asdict
from pathlib import Path

from data_prep.captioning.questions import Answer
from data_prep.records import InputError


class Answers:
    """Answers by key. Several threads may add."""

    def __init__(self, path: Path) -> None:
        """Raises InputError where the file cannot be used."""
        self._path = path
        self._known: dict[str, Answer] = {}
        self.spent_usd = 0.0
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = path.read_bytes().split(b"\n") if path.exists() else []
        except OSError as error:
            raise InputError(f"captions.cache: {path} cannot be read: {error.strerror}") from error
        for line in lines:
            self._recall(line)

    def get(self, key: str) -> Answer | None:
        return self._known.get(key)

    def add(self, key: str, answer: Answer | None, cost_usd: float) -> None:
        """Keep an answer, or the cost of none."""
        row = {"key": key, "cost_usd": cost_usd, "answer": asdict(answer) if answer else None}
        line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
        with self._lock, self._path.open("ab") as out:
            fcntl.flock(out, fcntl.LOCK_EX)  # another output may share the file
            if out.tell() and not self._ends_whole():
                line = b"\n" + line
            out.write(line)
            out.flush()
            os.fsync(out.fileno())
            if answer:
                self._known[key] = answer

    def _ends_whole(self) -> bool:
        with self._path.open("rb") as stream:
            stream.seek(-1, os.SEEK_END)
            return stream.read(1) == b"\n"

    def _recall(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            cost_usd, found = float(row["cost_usd"]), row["answer"]
            if found:
                self._known[str(row["key"])] = Answer(tuple(found["people"]), str(found["scene"]))
        except (ValueError, KeyError, TypeError):
            return  # empty or torn
        self.spent_usd += cost_usd
