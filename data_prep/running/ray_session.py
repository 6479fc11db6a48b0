"""The Ray that work runs on: the caller's if it has one, else the cluster that RAY_ADDRESS names, else our own.

One of our own lives on this machine, in a folder of its own, and is started again when its node dies. What a driver
that was killed has left of its folder is removed by the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PREFIX = "castbank-ray-"
LOCK = "driver.lock"  # held by the driver as long as it lives
NOISE = "A worker died or was killed"  # Ray prints it to stdout whatever it is told; a Failure says it better
OBJECT_STORE_BYTES = (
    128 * 1024**2
)  # results are small, data goes by file; Ray's default is 30 % of the memory
START_ATTEMPTS = 3  # Ray gives its own node 30 s to come up, which a machine under load can miss
STARTS_LATE = "timed out during startup"


class RaySession:
    """A connection to Ray. num_cpus: what a Ray of our own offers, and so how much runs at once."""

    def __init__(self, num_cpus: int) -> None:
        self._num_cpus = num_cpus
        self._folder: Path | None = None
        self._lock: IO[str] | None = None
        self._started = False

    def start(self) -> None:
        """Connect, unless this process is connected already."""
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", NOISE)
        import ray

        if ray.is_initialized():
            return
        self._started = True  # from here on there is something to shut down
        with _own_sigterm():
            if address := os.environ.get("RAY_ADDRESS"):
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            else:
                self._start_own()

    def restart(self) -> bool:
        """Start a Ray of our own anew after its node died; False where it is not ours to start."""
        if self._folder is None:
            return False
        self.end()
        self.start()
        return True

    def end(self) -> None:
        """Disconnect; of a Ray of our own no process and no file is left."""
        if self._started:
            import ray

            ray.shutdown()
            self._started = False
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        if self._lock:
            self._lock.close()
            self._lock = None

    def _start_own(self) -> None:
        import ray

        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # else a token is made that later clients lack
        remove_abandoned()
        for attempt in range(1, START_ATTEMPTS + 1):
            self._folder, self._lock = own_folder()
            try:
                ray.init(
                    address="local",
                    num_cpus=self._num_cpus,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                    object_store_memory=OBJECT_STORE_BYTES,
                    runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
                    _temp_dir=str(self._folder),
                )
            except Exception as error:
                if STARTS_LATE not in str(error) or attempt == START_ATTEMPTS:
                    raise
                self.end()
                self._started = True
            else:
                return


def num_cpus() -> int:
    """Cores that Ray has now, 1 at least."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def num_gpus() -> int:
    """GPUs that Ray has now."""
    import ray

    return int(ray.cluster_resources().get("GPU", 0))


def largest_memory_bytes() -> int:
    """Memory that tasks may claim on the largest node; what claims more would wait for ever."""
    import ray

    return max((int(node["Resources"].get("memory", 0)) for node in ray.nodes() if node["Alive"]), default=0)


def own_folder() -> tuple[Path, IO[str]]:
    """A new folder, with its lock taken before the lock has its name: nobody finds it and thinks it abandoned."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = (folder / f".{LOCK}").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    (folder / f".{LOCK}").rename(folder / LOCK)
    return folder, lock


def remove_abandoned() -> None:
    """Remove folders whose driver was killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{LOCK}"):
        with contextlib.suppress(OSError), path.open("r+") as lock:  # held, gone, or somebody else's
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent, ignore_errors=True)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keeps the SIGTERM handler of whoever has one; ray.init puts in its own, which exits, and what comes to that
    one meanwhile is handed on."""
    before = signal.getsignal(signal.SIGTERM)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        yield
    except SystemExit:
        before(signal.SIGTERM, None)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
