"""Pods as plain processes of this machine, for tests: several of them share a folder, as pods share a volume.

A test is the job controller: it starts a process for each index, and again where an exit code asks for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.job_folder import JobFolder, Outcome
from cluster.kubernetes.pods import own_command
from cluster.spec import JobSpec, Resources, Retry, Stopping

ROOT = Path(__file__).resolve().parent.parent.parent

RANK = """
import json, os, signal, sys, time
from pathlib import Path
job, rank, token = Path(os.environ["CASTBANK_JOB"]) / "job", int(os.environ["RANK"]), os.environ["CASTBANK_ATTEMPT"]
def beat(step, phase="train"):
    now = time.time()
    text = json.dumps(dict(rank=rank, host="here", pid=os.getpid(), token=token, phase=phase, step=step,
                           step_at_s=now, alive_at_s=now))
    (job / "heartbeats").mkdir(exist_ok=True)
    aside = job / "heartbeats" / f".{rank}"
    aside.write_text(text)
    aside.rename(job / "heartbeats" / f"rank-{rank}.json")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
first = not Path(f"been-{rank}").exists()
Path(f"been-{rank}").touch()
print(*(os.environ[name] for name in ("WORLD_SIZE", "NODE_RANK", "LOCAL_RANK")), flush=True)
"""
FOREVER = "beat(1)\nPath(f'up-{rank}').touch()\nwhile True: signal.pause()"


def training(folder: Path, script: str, **changes: Any) -> JobSpec:
    spec = JobSpec(
        "gang-0001",
        "gang",
        "kubernetes",
        ("/no/such/python3", "-u", "-c", RANK + script),  # the submitter's interpreter is not in the image
        folder,
        folder,
        environment={"GIVEN": "$x"},
        ranks=True,
        resources=Resources(nodes=2, processes_per_node=1),
        retry=Retry(max_failures=3, backoff_s=0),
        stopping=Stopping(grace_s=20, hang_s=300),
        image="x",
    )
    JobFolder(folder).logs.mkdir(parents=True)
    JobFolder(folder).write_spec(replace(spec, **changes))
    return replace(spec, **changes)


class Pods:
    """The pods of a job, by index."""

    def __init__(self, spec: JobSpec, own: Path) -> None:
        self._spec, self._own = spec, own
        self.running: dict[int, subprocess.Popen[bytes]] = {}

    def start(
        self, index: int, verb: str = "run", name: str = "JOB_COMPLETION_INDEX"
    ) -> subprocess.Popen[bytes]:
        """A pod with its index, with a folder of its own for temporary files."""
        tmp = self._own / f"tmp-{index}"
        tmp.mkdir(exist_ok=True)
        environment = {
            **os.environ,
            name: str(index),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "29500",
            "TMPDIR": str(tmp),
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, *own_command(verb, self._spec)[1:]]
        with self._output(index).open("ab") as output:
            pod = subprocess.Popen(
                command, cwd=self._own, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        if verb == "run":
            self.running[index] = pod
        return pod

    def output(self, index: int) -> str:
        """What the containers of a pod have written."""
        return self._output(index).read_text()

    def _output(self, index: int) -> Path:
        return self._own / f"output-{index}"

    def codes(self, timeout_s: float = 60.0) -> dict[int, int]:
        """How the pods ended, when all have."""
        return {index: pod.wait(timeout_s) for index, pod in sorted(self.running.items())}


@contextmanager
def pods_of(spec: JobSpec, own: Path) -> Iterator[Pods]:
    """Pods that end with the test."""
    pods = Pods(spec, own)
    try:
        yield pods
    finally:
        for pod in pods.running.values():
            pod.kill()
            pod.wait()


def outcome(spec: JobSpec) -> Outcome:
    found = JobFolder(spec.folder).outcome()
    assert found is not None
    return found
