"""A real Ray cluster on this machine: a head with a job server, and further nodes that can be killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

STORE_BYTES = 100 * 1024**2
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_grpc_client_keepalive_time_ms": "5000",  # else a dead network is noticed after minutes
    "RAY_grpc_client_keepalive_timeout_ms": "5000",
    "OMP_NUM_THREADS": "1",
}


def until(seen: Callable[[], bool], what: str, limit_s: float = 60.0) -> None:
    """Wait until ``seen``, looking ten times a second; AssertionError when it takes longer than ``limit_s``."""
    end_s, pause = time.monotonic() + limit_s, threading.Event()
    while not seen():
        assert time.monotonic() < end_s, f"not within {limit_s:g} s: {what}"
        pause.wait(0.1)


class Node:
    """One ``ray start`` and all that it has started."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        always = ["--block", "--disable-usage-stats", "--min-worker-port=0", "--max-worker-port=0"]
        own = [f"--object-store-memory={STORE_BYTES}", f"--dashboard-agent-listen-port={free_port()}"]
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", "start", *always, *own, *arguments],
                env={**os.environ, **ENVIRONMENT},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def raylet(self) -> psutil.Process:
        """The process that is the node, to Ray."""
        for process in psutil.Process(self.process.pid).children():
            if process.name() == "raylet":
                return process
        raise AssertionError("no raylet")

    def kill_raylet(self) -> None:
        """The node's workers notice it after some seconds."""
        self.raylet().send_signal(signal.SIGKILL)

    def kill(self) -> None:
        """Every process at once, as where the machine goes down."""
        mine = psutil.Process(self.process.pid)
        for process in [mine, *mine.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def end(self) -> None:
        """Every process of the node, first asked, then not."""
        with contextlib.suppress(psutil.NoSuchProcess):
            mine = psutil.Process(self.process.pid)
            every = [mine, *mine.children(recursive=True)]
            mine.terminate()
            _, left = psutil.wait_procs(every, timeout=8)
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self.process.wait()


class RayLab:
    """Head and nodes; the folder, with Ray's logs, goes with them."""

    def __init__(self, head_cpus: int = 2) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cb-ray-"))  # short: a socket's path has at most 107 bytes
        self.num_dead = 0  # nodes that a test has killed
        ports = [free_port() for _ in range(3)]
        self.gcs, self.address = f"127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
        head = [
            "--head",
            f"--port={ports[0]}",
            f"--dashboard-port={ports[1]}",
            f"--temp-dir={self.folder / 'r'}",
        ]
        head += [f"--ray-client-server-port={ports[2]}", f"--num-cpus={head_cpus}"]
        self.nodes = [Node(head, self.folder / "head.log")]

    def wait(self, num_nodes: int) -> None:
        """Until the job server says that so many nodes are alive."""
        from ray.job_submission import JobSubmissionClient

        def enough() -> bool:
            with contextlib.suppress(ConnectionError, RuntimeError):
                answer = JobSubmissionClient(self.address)._do_request("GET", "/api/v0/nodes?limit=99")
                nodes = answer.json()["data"]["result"]["result"]
                return sum(1 for node in nodes if node["state"] == "ALIVE") == num_nodes
            return False

        until(enough, f"{num_nodes} nodes at {self.address}; see {self.folder}", 90)

    def add_node(self, num_cpus: int) -> Node:
        """A further node, which is not waited for."""
        arguments = [f"--address={self.gcs}", f"--num-cpus={num_cpus}"]
        self.nodes.append(Node(arguments, self.folder / f"node-{len(self.nodes)}.log"))
        return self.nodes[-1]

    def end(self) -> None:
        """Leave nothing behind."""
        for node in reversed(self.nodes):
            node.end()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def ray_lab(head_cpus: int = 2) -> Iterator[RayLab]:
    """A head that takes jobs."""
    lab = RayLab(head_cpus)
    try:
        lab.wait(1)
        yield lab
    finally:
        lab.end()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
