"""The queue of this machine: jobs wait in it until there are cores and GPUs for them, in order of priority and age.

One small file per waiting or running job. A runner, started by the first submission and gone when the queue is
empty, starts each job's supervisor in a session of its own. A job whose supervisor is gone without an outcome, as
after a reboot, is put back into the queue by the next runner.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cluster.job_folder import JobFolder, write_atomic
from cluster.spec import JobSpec

POLL_S = 0.2
SAME_START_S = 1.0  # the start times of one process, read twice, differ by less
WITH_PASSWORD = re.compile(r"://[^/@\s:]+:[^/@\s]+@")
PASSED_ON = (  # of the submitter's environment, by how the name begins; nothing that may be a secret
    "HOME", "PATH", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH",
    "LC_", "CASTBANK_HOME", "CUDA_", "NVIDIA_", "OMP_", "MKL_", "OPENBLAS_", "NCCL_", "GLOO_", "DS_", "HF_HOME",
    "TORCH_", "TRITON_", "XDG_CACHE_HOME", "PIP_", "npm_config_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_", "REQUESTS_CA_BUNDLE",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One job in the queue. pid, started_s: of its supervisor while it runs; gpus: those it was given."""

    id: str
    folder: Path
    num_cpus: int
    num_gpus: int
    environment: dict[str, str]
    pid: int | None = None
    started_s: float = 0.0
    gpus: tuple[int, ...] = ()

    def alive(self) -> bool:
        """Whether its supervisor is there."""
        import psutil

        if self.pid is None:
            return False
        try:
            process = psutil.Process(self.pid)
            same: bool = abs(process.create_time() - self.started_s) < SAME_START_S
            return same and str(process.status()) != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


class Queue:
    """The queue's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, spec: JobSpec) -> None:
        """Put a job at the end of those of its priority."""
        own = {
            name: value
            for name, value in os.environ.items()
            if name.startswith(PASSED_ON) and not WITH_PASSWORD.search(value)
        }
        entry = Entry(spec.id, spec.folder, *wanted(spec), own)
        name = f"{5_000_000_000 - spec.priority:010d}-{time.time_ns():020d}-{spec.id}.json"
        write_atomic(self.folder / name, _to_json(entry))

    def entries(self) -> dict[Path, Entry]:
        """Every job in the queue, in the order in which they are started."""
        found = {}
        for path in sorted(self.folder.glob("*.json")):
            with contextlib.suppress(FileNotFoundError):  # ended meanwhile
                record = json.loads(path.read_text(encoding="utf-8"))
                record |= {"folder": Path(record["folder"]), "gpus": tuple(record["gpus"])}
                found[path] = Entry(**record)
        return found

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether this process is now the queue's only runner."""
        with (self.folder / "lock").open("a") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def ensure_runner(self) -> None:
        """Start a runner where there is work and none is there; it outlives this process."""
        if not self.entries():
            return
        with self.alone() as free:
            if not free:
                return
        ours = str(Path(__file__).resolve().parent.parent)
        with (self.folder / "runner.log").open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-P", "-m", "cluster.local_queue", str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={**os.environ, "PYTHONPATH": ours},
                start_new_session=True,
            )


class Runner:
    """Starts what fits, until nothing is left."""

    def __init__(self, queue: Queue, num_cpus: int, num_gpus: int) -> None:
        self._queue, self._num_cpus, self._num_gpus = queue, num_cpus, num_gpus
        self._started: dict[int, subprocess.Popen[bytes]] = {}  # by pid, to reap them

    def run(self) -> None:
        """Until the queue is empty."""
        while self.step():
            time.sleep(POLL_S)

    def step(self) -> bool:
        """Look at every job once, and start what fits; whether any is left."""
        for process in list(self._started.values()):
            if process.poll() is not None:
                del self._started[process.pid]
        running: list[Entry] = []
        waiting: dict[Path, Entry] = {}
        for path, entry in self._queue.entries().items():
            if entry.alive():
                running.append(entry)
            elif self._over(entry):
                path.unlink(missing_ok=True)
            else:
                waiting[path] = entry
        cpus = self._num_cpus - sum(entry.num_cpus for entry in running)
        gpus = sorted(set(range(self._num_gpus)) - {gpu for entry in running for gpu in entry.gpus})
        for path, entry in waiting.items():
            if entry.num_cpus > cpus or entry.num_gpus > len(gpus):
                break  # in order: a large job is not overtaken for ever by small ones
            given, gpus = tuple(gpus[: entry.num_gpus]), gpus[entry.num_gpus :]
            self._start(path, replace(entry, gpus=given))
            cpus -= entry.num_cpus
        return bool(running or waiting)

    def _over(self, entry: Entry) -> bool:
        """Whether a job without a supervisor has ended; one that its owner no longer wants ends here."""
        place = JobFolder(entry.folder)
        outcome = place.outcome()
        if outcome is not None and outcome.state != "preempted":
            return True
        if place.cancelled.exists():
            place.write_outcome("cancelled", 0, "cancelled while it waited")
            return True
        return not place.job.is_dir()  # its folder was deleted

    def _start(self, path: Path, entry: Entry) -> None:
        import psutil

        place = JobFolder(entry.folder)
        place.renew()
        given = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, entry.gpus))} if self._num_gpus else {}
        with place.log.open("ab") as log:
            process = subprocess.Popen(
                ["bash", str(place.script)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={**entry.environment, **given},
                start_new_session=True,
            )
        self._started[process.pid] = process
        started_s = psutil.Process(process.pid).create_time()
        write_atomic(path, _to_json(replace(entry, pid=process.pid, started_s=started_s)))


def wanted(spec: JobSpec) -> tuple[int, int]:
    """CPUs and GPUs of all processes of a job."""
    return spec.world * spec.resources.cpus_per_process, spec.world * spec.resources.gpus_per_process


def capacity() -> tuple[int, int]:
    """CPUs and GPUs of this machine."""
    num_gpus = 0
    if shutil.which("nvidia-smi"):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
        num_gpus = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    return len(os.sched_getaffinity(0)), num_gpus


def _to_json(entry: Entry) -> str:
    return json.dumps(asdict(entry) | {"folder": str(entry.folder)})


def main(arguments: Sequence[str]) -> int:
    """Be the runner of a queue's folder, unless there is one."""
    queue = Queue(Path(arguments[0]))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    while (
        queue.entries()
    ):  # again: a job may have come while the last look was over and the lock not yet free
        with queue.alone() as free:
            if not free:
                return 0
            Runner(queue, *capacity()).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
