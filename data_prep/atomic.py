"""Files that are absent, old or complete, whatever happens while they are written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomic(path: Path, content: bytes) -> None:
    """Write aside in the same folder, flush to the disk, rename into place; folders are made as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        Path(partial).chmod(0o644)  # mkstemp gives 0600; a cache may be shared
        Path(partial).replace(path)
    finally:
        Path(partial).unlink(missing_ok=True)
