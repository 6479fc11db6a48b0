"""What a job's processes have written, as it grows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

POLL_S = 0.2


def follow(paths: Sequence[Path], ended: Callable[[], bool]) -> Iterator[str]:
    """The lines of several files as they come, each whole; ends when ``ended`` says so and all is read.

    A file may appear later, and a torn last line is given at the end. Where several files grow at once, their lines
    alternate by turns, not by time.
    """
    positions, pending = dict.fromkeys(paths, 0), dict.fromkeys(paths, "")
    while True:
        last = ended()
        for path in paths:
            if path.is_file():
                positions[path], text = _grown(path, positions[path])
                *lines, pending[path] = (pending[path] + text).split("\n")
                yield from lines
        if last:
            yield from filter(None, pending.values())
            return
        time.sleep(POLL_S)


def _grown(path: Path, position: int) -> tuple[int, str]:
    with path.open("rb") as stream:
        stream.seek(position)
        data = stream.read()
    whole = data.rfind(b"\n") + 1 or len(data)  # not half of a character
    return position + whole, data[:whole].decode(errors="replace")


def tail(path: Path, num_lines: int) -> list[str]:
    """The last lines of a file; none where there is no file."""
    if not path.is_file():
        return []
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-num_lines:]
