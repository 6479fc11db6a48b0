"""What a family's frozen parts are, as a hash that costs milliseconds where they are gigabytes.

A small file counts whole. Of a large one, its size, its beginning (in safetensors the names, types and shapes of
all tensors) and blocks spread evenly over it count: training a network changes nearly all of its values, so that
two networks that differ do so in those blocks. A single flipped bit elsewhere is not seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

WHOLE_BYTES = 16 * 2**20  # files up to here count whole
BLOCK_BYTES, NUM_BLOCKS = 64 * 2**10, 128  # 8 MiB read of each larger one


def of_files(files: Iterable[Path], *said: object) -> str:
    """Hash of files by name and content, in any order, and of what else is said, such as a dtype or a length."""
    digest = hashlib.sha256(repr(said).encode())
    for path in sorted(files, key=lambda path: path.name):
        digest.update(f"/{path.name}/{path.stat().st_size}/".encode())
        _add(digest, path)
    return digest.hexdigest()


def _add(digest: hashlib._Hash, path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as stream:
        if size <= WHOLE_BYTES:
            digest.update(stream.read())
            return
        for block in range(NUM_BLOCKS):
            stream.seek(block * (size - BLOCK_BYTES) // (NUM_BLOCKS - 1))
            digest.update(stream.read(BLOCK_BYTES))
