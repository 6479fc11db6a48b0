"""What is to be sent to a tracking server, on disk first: appended at once, marked when it has arrived."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from data_prep.records import Json
from pipeline.training.checkpoints import write_text


class Spool:
    """Entries on disk, each one line of JSON, and how many of their bytes have been sent."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._entries, self._mark = folder / "mlflow.jsonl", folder / "mlflow.sent"
        self._entries.touch()
        self._drop_torn_line()
        self.sent = int(self._mark.read_text()) if self._mark.is_file() else 0
        self._lock = threading.Lock()

    def append(self, entry: Json) -> None:
        """Keep one entry; it survives the process."""
        with self._lock, self._entries.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")

    def last(self, key: str) -> Any:
        """The value under ``key`` of the last entry that has it; None without any."""
        with self._entries.open(encoding="utf-8") as stream:
            entries = [json.loads(line) for line in stream]
        return next((entry[key] for entry in reversed(entries) if key in entry), None)

    def unsent(self) -> tuple[list[Json], int]:
        """Entries that are not sent, and the mark to set when they are."""
        with self._lock, self._entries.open("rb") as stream:
            stream.seek(self.sent)
            data = stream.read()
        return [json.loads(line) for line in data.splitlines()], self.sent + len(data)

    def mark(self, sent: int) -> None:
        """Everything before byte ``sent`` has arrived."""
        write_text(self._mark, str(sent))
        self.sent = sent

    def rewind(self) -> None:
        """Nothing has arrived: where it went is no more."""
        self.mark(0)

    def _drop_torn_line(self) -> None:
        data = self._entries.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with self._entries.open("r+b") as stream:
                stream.truncate(whole)
