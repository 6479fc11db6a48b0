"""This machine as a place for jobs: a queue, a supervisor per job, one process per rank."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Mapping, Sequence

from cluster import secret_values
from cluster.job_folder import Attempt, JobFolder
from cluster.local_queue import Queue, capacity, wanted
from cluster.processes import Child
from cluster.registry import home
from cluster.spec import JobError, JobSpec, Status


class LocalLauncher:
    """See ``cluster.launchers.Launcher``; the scheduler's id of a job is its own."""

    def __init__(self) -> None:
        self._queue = Queue(home() / "queue")

    def render(self, spec: JobSpec) -> str:
        """A bash script that becomes the job's supervisor."""
        exports = {"PYTHONPATH": str(spec.code), "PYTHONSAFEPATH": "1"} if spec.code else {}
        lines = [f"export {name}={shlex.quote(value)}" for name, value in exports.items()]
        command = (spec.command[0], "-P", "-m", "cluster.supervisor", str(spec.folder))
        name = "".join(c if c.isprintable() else " " for c in spec.name)
        head = ["#!/usr/bin/env bash", f"# castbank job {spec.id}: {name}"]
        body = [f"cd {shlex.quote(str(spec.workdir))} || exit 2", f"exec {shlex.join(command)}"]
        return "\n".join([*head, *lines, *body, ""])

    def submit(self, spec: JobSpec, after: Sequence[str]) -> str:
        """Put the job into the queue; it starts at once where there is room. ``after`` is the supervisor's affair.

        Raises:
            JobError: it asks for more than the machine has, or for a secret that the machine cannot find later.
        """
        secret_values.check(spec.secrets, ("file",), "local")
        has = dict(zip(("CPUs", "GPUs"), capacity(), strict=True))
        for (what, have), want in zip(has.items(), wanted(spec), strict=True):
            if want > have:
                key = "cpus_per_process" if what == "CPUs" else "gpus_per_process"
                raise JobError(
                    f"resources.{key}: {spec.world} processes ask for {want} {what} in all, this machine has "
                    f"{have}; lower it, or run fewer processes"
                )
        place = JobFolder(spec.folder)
        place.script.write_text(self.render(spec), encoding="utf-8")
        self._queue.add(spec)
        self._queue.ensure_runner()
        return spec.id

    def states(self, jobs: Mapping[str, JobSpec]) -> dict[str, Status]:
        """How jobs stand; asks the queue to go on where it was interrupted, as by a reboot."""
        entries = {entry.id: entry for entry in self._queue.entries().values()}
        if any(not entry.alive() for entry in entries.values()):
            self._queue.ensure_runner()
        found = {}
        for job_id, spec in jobs.items():
            outcome = JobFolder(spec.folder).outcome()
            entry = entries.get(job_id)
            if entry is not None and entry.alive():
                found[job_id] = Status("running")
            elif outcome is not None and outcome.state != "preempted":
                found[job_id] = Status(outcome.state, outcome.reason)
            elif entry is not None:
                found[job_id] = Status("queued", "goes on where it was" if outcome or entry.pid else "")
            else:
                found[job_id] = Status("preempted" if outcome else "unknown")
        return found

    def cancel(self, spec: JobSpec, scheduler_id: str) -> None:
        """Nothing more: runner and supervisor have seen the mark in the job's folder, or will see it."""
        self._queue.ensure_runner()


def children(spec: JobSpec, attempt: Attempt) -> list[Child]:
    """One process per rank with the variables that torchrun would set, or one per part of an array, or one."""
    place, port = JobFolder(spec.folder), free_port()
    made = []
    for index in range(spec.world):
        words = tuple(word.replace("{part}", f"{index + 1}/{spec.array}") for word in spec.command)
        ranks = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": spec.world, "LOCAL_WORLD_SIZE": spec.world}
        ranks |= {"MASTER_PORT": port}
        variables = {name: str(value) for name, value in ranks.items()} if spec.ranks else {}
        if spec.ranks:
            variables |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
        made.append(Child(words if spec.array else spec.command, place.rank_log(index), variables))
    return made


def free_port() -> int:
    """A port of this host that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
