"""A folder inside the shared one, for the nodes to try: a token to be read there, and a lock that is held here."""

from __future__ import annotations

import fcntl
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.checks.probe import LOCK, TOKEN

SEEN_WAIT_S = 10.0  # NFS shows what another node wrote after its attribute cache, 3 to 60 s by default
POLL_S = 0.25


@dataclass(frozen=True)
class Trial:
    """The folder, absolute, and what its token holds."""

    folder: Path
    token: str

    def sees(self, host: str) -> bool:
        """Whether what a node of that name wrote is seen here, now or within some seconds."""
        until_s = time.monotonic() + SEEN_WAIT_S
        while not any(self.folder.glob(f"node-{host}-*")):  # a listing, as it asks the server anew
            if time.monotonic() > until_s:
                return False
            time.sleep(POLL_S)
        return True


@contextmanager
def trial(shared: Path) -> Iterator[Trial]:
    """A trial folder below ``shared``, with its lock held; removed at the end.

    Raises:
        OSError: nothing can be written there.
    """
    folder = Path(tempfile.mkdtemp(prefix=".castbank-doctor-", dir=shared.absolute()))
    try:
        folder.chmod(0o755)
        token = secrets.token_hex(8)
        (folder / TOKEN).write_text(token, encoding="utf-8")
        with (folder / LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield Trial(folder, token)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
