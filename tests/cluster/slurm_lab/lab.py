"""A real Slurm for tests: one slurmctld and two slurmd on this machine, without systemd, in a private folder.

By hand: ``python -m tests.cluster.slurm_lab.lab FOLDER`` keeps one up until it is interrupted; another shell then
works with it after ``export SLURM_CONF=FOLDER/slurm.conf``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.waiting import until

NODES = ("n1", "n2")
PACKAGES = ("slurm-wlm", "munge")
START_S, END_S = 60.0, 20.0
HERE = Path(__file__).parent


class Lab:
    """Slurm in a folder; ``SLURM_CONF`` says so to every program of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.conf = folder, folder / "slurm.conf"

    def start(self) -> None:
        """Write the configuration, on ports that are free now, and start all."""
        for name, mode in {
            "run": 0o755,
            "log": 0o755,
            "state": 0o700,
            "spool-n1": 0o755,
            "spool-n2": 0o755,
        }.items():
            (self.folder / name).mkdir(parents=True)
            (self.folder / name).chmod(mode)
        ports = dict(zip(("CONTROLLER_PORT", "N1_PORT", "N2_PORT"), map(str, free_ports(3)), strict=True))
        text = (HERE / "slurm.conf.in").read_text()
        for name, value in {
            "DIR": str(self.folder),
            "HOST": socket.gethostname().split(".")[0],
            **ports,
        }.items():
            text = text.replace(f"@{name}@", value)
        self.conf.write_text(text)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        run, log = self.folder / "run", self.folder / "log"
        self._start(
            "munged", "--force", f"--key-file={key}", f"--socket={run}/munge.sock", f"--pid-file={run}/munged.pid",
            f"--log-file={log}/munged.log", f"--seed-file={run}/munge.seed",
        )  # fmt: skip
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        self.wait_for_nodes()

    def start_controller(self, *, forget: bool = False) -> None:
        """Start slurmctld; forget: without the jobs that it knew."""
        self._start("slurmctld", "-f", str(self.conf), *(["-c"] if forget else []))

    def stop_controller(self) -> None:
        """End slurmctld; it keeps its state."""
        self._end("slurmctld", signal.SIGTERM)

    def start_node(self, node: str) -> None:
        """Start a slurmd."""
        self._start("slurmd", "-N", node, "-f", str(self.conf))

    def kill_node(self, node: str) -> None:
        """kill -9 of a slurmd, as when a machine falls off the network: its jobs run on."""
        self._end(f"slurmd-{node}", signal.SIGKILL)

    def wait_for_nodes(self) -> None:
        """Until both nodes have nothing to do."""
        until(
            lambda: self.ask("sinfo", "-h", "-p", "debug", "-t", "idle", "-o", "%D") == str(len(NODES)),
            START_S,
        )

    def ask(self, *words: str) -> str:
        """What a program of Slurm says; empty where it fails."""
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=self.environment)
        return done.stdout.strip() if done.returncode == 0 else ""

    @property
    def environment(self) -> dict[str, str]:
        """This process's, with Slurm's variables of ours alone."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
        return kept | {"SLURM_CONF": str(self.conf)}

    def stop(self) -> None:
        """End all of it, jobs too; each process by its id."""
        for job_id in self.ask("squeue", "-h", "-o", "%A").split():
            self.ask("scancel", "--signal=KILL", "--full", job_id)
            self.ask("scancel", job_id)
        for name in ("slurmctld", *(f"slurmd-{node}" for node in NODES), "munged"):
            self._end(name, signal.SIGKILL)  # an orderly end takes slurmctld 5 s, to keep what nobody wants
        for process in self.leftovers():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def leftovers(self) -> list[psutil.Process]:
        """Slurm's and its jobs' processes with this lab's configuration in their environment, as steps whose slurmd
        was killed."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                has = process.environ()
                own = process.name().startswith("slurm") or "SLURM_JOB_ID" in has
                if own and has.get("SLURM_CONF") == str(self.conf):
                    found.append(process)
        return found

    def _start(self, *words: str) -> None:
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=self.environment)
        assert done.returncode == 0, f"{words}: {done.stderr}"

    def _end(self, name: str, number: int) -> None:
        path = self.folder / "run" / f"{name}.pid"
        with contextlib.suppress(FileNotFoundError, ValueError, psutil.NoSuchProcess):
            process = psutil.Process(int(path.read_text()))
            process.send_signal(number)
            until(lambda: _gone(process), END_S)
            path.unlink(missing_ok=True)


def _gone(process: psutil.Process) -> bool:
    """Whether it has ended; who should reap it may take its time."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def missing() -> str:
    """Why there can be no Slurm here; empty where there can. Installs the Debian packages as root."""
    if os.geteuid() != 0:
        return "slurmd wants to be root"
    if all(shutil.which(program) for program in ("slurmctld", "slurmd", "munged", "sbatch")):
        return ""
    if not shutil.which("apt-get"):
        return f"Slurm is not installed, nor is apt-get to install {' '.join(PACKAGES)}"
    install = ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES]
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # 1: no service is started
    done = subprocess.run(install, capture_output=True, text=True, check=False, env=quiet)
    return "" if done.returncode == 0 else f"apt-get install {' '.join(PACKAGES)}: {done.stderr[-300:]}"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Lab]:
    """A lab, from its start to its end."""
    lab = Lab(folder)
    try:
        lab.start()
        yield lab
    finally:
        lab.stop()


if __name__ == "__main__":
    reason = missing()
    if reason:
        sys.exit(reason)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with running(Path(sys.argv[1]).absolute()) as up, contextlib.suppress(KeyboardInterrupt):
        print(f"export SLURM_CONF={up.conf}", flush=True)
        signal.pause()
