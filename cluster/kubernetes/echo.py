"""What a pod's processes write into the job's folder, copied to the container's output for ``kubectl logs``."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

POLL_S = 0.5
BLOCK = 1 << 20


class Echo:
    """While it is open, stdout and stderr go to ``log``; what that and ``others`` get goes to the old stdout."""

    def __init__(self, log: Path, others: Sequence[Path]) -> None:
        self._log, self._paths = log, [log, *others]
        self._seen: dict[Path, int] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._copy, daemon=True)

    def __enter__(self) -> Echo:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._seen = {path: path.stat().st_size if path.exists() else 0 for path in self._paths}
        self._outputs = os.dup(1), os.dup(2)
        with self._log.open("ab") as stream:
            _redirect(stream.fileno(), stream.fileno())
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        _redirect(*self._outputs)
        for output in self._outputs:
            os.close(output)

    def _copy(self) -> None:
        while True:
            last = self._done.wait(POLL_S)
            for path in self._paths:
                self._copy_new(path)
            if last:
                return

    def _copy_new(self, path: Path) -> None:
        if not path.exists():
            return
        with path.open("rb") as stream:
            stream.seek(self._seen[path])
            while block := stream.read(BLOCK):
                self._seen[path] += len(block)
                os.write(self._outputs[0], block)


def _redirect(out: int, err: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(out, 1)
    os.dup2(err, 2)
