"""This machine as a place for jobs: a queue, a supervisor per job, one process per rank."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster import secret_values
from cluster.job_folder import Attempt, JobFolder
from cluster.local_entries import Entry, elsewhere
from cluster.local_queue import capacity, own_queue, wanted
from cluster.local_readiness import awaited
from cluster.processes import Child, one_per_part
from cluster.rendezvous import free_port
from cluster.spec import JobError, JobSpec, Status


class LocalLauncher:
    """See ``cluster.launchers.Launcher``; the scheduler's id of a job is its own."""

    def __init__(self) -> None:
        self._queue = own_queue()

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
        """Put the job into the queue; it starts at once where there is room; ``spec.after`` says the rest.

        Raises:
            JobError: it asks for more than the machine has, for a secret that the machine cannot find later, or
                for a working directory that is not there.
        """
        secret_values.check(spec.secrets, ("file",), "local")
        if not spec.workdir.is_dir():
            raise JobError(
                f"workdir: {str(spec.workdir)!r} is no folder of this machine; give one that is there, or make it"
            )
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
        found = {job_id: _status(spec, entries.get(job_id)) for job_id, spec in jobs.items()}
        if not jobs.keys() <= entries.keys():
            others = elsewhere()
            for job_id in [job_id for job_id in jobs if job_id in others and job_id not in entries]:
                if found[job_id].state in ("unknown", "preempted"):
                    found[job_id] = _status_elsewhere(others[job_id])
        return found

    def cancel(self, spec: JobSpec, scheduler_id: str) -> None:
        """Nothing more: runner and supervisor have seen the mark in the job's folder, or will see it."""
        self._queue.ensure_runner()


def _status(spec: JobSpec, entry: Entry | None) -> Status:
    """How a job stands, whose entry in this machine's queue is given where it has one."""
    if entry is not None and entry.alive():
        return Status("running")
    outcome = JobFolder(spec.folder).outcome()
    if entry is not None and entry.awaits is not None:
        return Status("queued", "until what ran in its folder before has ended")
    if outcome is not None and outcome.state != "preempted":
        return Status(outcome.state, outcome.reason)
    if entry is None:
        return Status("preempted" if outcome else "unknown")
    if (folder := awaited(spec.after)) is not None:
        return Status("queued", f"after {folder}")
    return Status("queued", "goes on where it was" if outcome or entry.started_s else "")


def _status_elsewhere(path: Path) -> Status:
    """Only the machine of an entry can tell whether its supervisor is there, and start it.

    It counts as live, so that nobody starts it a second time here.
    """
    return Status(
        "queued", f"on {path.parent.name}; ask there, or delete {path} if that machine is gone for good"
    )


def children(spec: JobSpec, attempt: Attempt) -> list[Child]:
    """One process per rank with the variables that torchrun would set, or one per part of an array, or one."""
    place = JobFolder(spec.folder)
    if not spec.ranks:
        return one_per_part(spec, place, {}) if spec.array else [Child(spec.command, place.rank_log(0))]
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "GLOO_SOCKET_IFNAME": "lo"}
    made = []
    for index in range(spec.world):
        ranks = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": spec.world, "LOCAL_WORLD_SIZE": spec.world}
        variables = {name: str(value) for name, value in ranks.items()}
        made.append(Child(spec.command, place.rank_log(index), variables | meet))
    return made
