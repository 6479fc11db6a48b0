"""The queue of this machine: jobs wait in it until there are cores and GPUs for them, in order of priority and age.

One small file per waiting or running job, and one entry per folder. A runner, started by the first submission and
gone when the queue is empty, starts each job's supervisor in a session of its own. A job whose supervisor is gone
without an outcome, as after a reboot, is put back into the queue by the next runner; one whose supervisor comes to
nothing again and again has failed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cluster.job_folder import JobFolder
from cluster.local_entries import Entry, Process, load, queue_folder, save, started
from cluster.local_environment import passed_on
from cluster.local_readiness import num_ended, settled
from cluster.spec import JobSpec

POLL_S = 0.2
TROUBLE_S = 30.0  # before an entry that could not be handled is looked at again
UNREADABLE = (OSError, ValueError, TypeError, KeyError)  # of a file that is damaged, or another version's


class Queue:
    """The queue's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def add(self, spec: JobSpec) -> None:
        """Put a job at the end of those of its priority, in the place of an earlier submission of its folder."""
        num_cpus, num_gpus = wanted(spec)
        entry = Entry(
            spec.id, spec.folder, os.uname().nodename, num_cpus, num_gpus, passed_on(os.environ), spec.after
        )
        place = hashlib.sha256(os.fsencode(spec.folder)).hexdigest()[:12]
        name = f"{5_000_000_000 - spec.priority:010d}-{time.time_ns():020d}-{place}-{spec.id}.json"
        with self.changes():
            earlier = list(self.folder.glob(f"*-*-{place}-*.json"))
            for path in earlier:
                entry = _instead(entry, path)
            save(self.folder / name, entry)
            for path in earlier:
                path.unlink()

    def paths(self) -> list[Path]:
        """The file of every job in the queue, in the order in which they are started."""
        return sorted(self.folder.glob("*.json"))

    def entries(self) -> dict[Path, Entry]:
        """Every job in the queue whose file can be read, in the order in which they are started."""
        found = {}
        for path in self.paths():
            with contextlib.suppress(*UNREADABLE):  # ended meanwhile, or what the runner's log tells of
                found[path] = load(path)
        return found

    @contextlib.contextmanager
    def changes(self) -> Iterator[None]:
        """Nobody else changes the queue meanwhile; waits for whoever does."""
        with (self.folder / "changes").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

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
        if not self.paths():
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


def own_queue() -> Queue:
    """This user's queue on this machine."""
    return Queue(queue_folder())


class Runner:
    """Starts what fits, until nothing is left."""

    def __init__(self, queue: Queue, num_cpus: int, num_gpus: int) -> None:
        self._queue, self._num_cpus, self._num_gpus = queue, num_cpus, num_gpus
        self._started: dict[int, subprocess.Popen[bytes]] = {}  # by pid, to reap them
        self._put_off: dict[Path, float] = {}  # entries in trouble, and until when on the monotonic clock

    def run(self) -> None:
        """Until the queue is empty."""
        while self.step():
            time.sleep(POLL_S)

    def step(self) -> bool:
        """Look at every job once, and start what fits; whether any is left."""
        for process in list(self._started.values()):
            if process.poll() is not None:
                del self._started[process.pid]
        with self._queue.changes():
            holding, ready = self._sorted()
            cpus = self._num_cpus - sum(entry.num_cpus for entry in holding)
            gpus = sorted(set(range(self._num_gpus)) - {gpu for entry in holding for gpu in entry.gpus})
            for path, entry in ready.items():
                if entry.num_cpus > cpus or entry.num_gpus > len(gpus):
                    break  # in order: a large job is not overtaken for ever by small ones
                with self._troubled(path):
                    self._start(path, replace(entry, gpus=tuple(gpus[: entry.num_gpus])))
                    cpus, gpus = cpus - entry.num_cpus, gpus[entry.num_gpus :]
            return bool(self._queue.paths())

    def _sorted(self) -> tuple[list[Entry], dict[Path, Entry]]:
        """Those that hold cores and GPUs, and those that may be started now, in order."""
        holding: list[Entry] = []
        ready: dict[Path, Entry] = {}
        for path in self._queue.paths():
            with self._troubled(path):
                entry = load(path)
                if entry.holds():
                    holding.append(entry)
                elif time.monotonic() >= self._put_off.get(path, 0.0):
                    startable = settled(path, entry)
                    ready |= {path: startable} if startable else {}
        return holding, ready

    @contextlib.contextmanager
    def _troubled(self, path: Path) -> Iterator[None]:
        """What goes wrong with one entry is told in the runner's log and holds up no other; it waits."""
        try:
            yield
        except UNREADABLE as error:
            now_s = time.monotonic()
            if now_s >= self._put_off.get(path, 0.0):
                self._put_off[path] = now_s + TROUBLE_S
                sys.stderr.write(f"{path.name} waits: {type(error).__name__}: {error}\n")
                sys.stderr.flush()

    def _start(self, path: Path, entry: Entry) -> None:
        place = JobFolder(entry.folder)
        seen = num_ended(place)
        place.forget_outcome()
        place.stop.unlink(
            missing_ok=True
        )  # not cancelled: its owner may have set that since it was looked at
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
        now = replace(entry, num_ended=seen, starts=entry.starts + 1, started_s=time.time())
        try:
            save(path, replace(now, supervisor=Process(process.pid, started(process.pid))))
        except OSError:  # a supervisor that no entry knows would be started a second time
            process.kill()
            raise


def _instead(entry: Entry, path: Path) -> Entry:
    """A new entry in the place of an earlier one, whose supervisor it has to wait for if that is there."""
    with contextlib.suppress(*UNREADABLE):
        earlier = load(path)
        process = earlier.supervisor if earlier.alive() else earlier.awaits
        if process is not None and process.alive():
            return replace(entry, awaits=process, gpus=earlier.gpus, replaces=earlier.id)
    return entry


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


def main(arguments: Sequence[str]) -> int:
    """Be the runner of a queue's folder, unless there is one."""
    queue = Queue(Path(arguments[0]))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    while queue.paths():  # again: a job may have come while the last look was over and the lock not yet free
        with queue.alone() as free:
            if not free:
                return 0
            Runner(queue, *capacity()).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
