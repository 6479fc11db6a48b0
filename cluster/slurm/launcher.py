"""Slurm as a place for jobs: one batch job per job, one srun per attempt, asked about with one squeue.

The batch script (``cluster.slurm.script``) runs the supervisor on the job's first node; a rank is a task of the
srun that ``cluster.slurm.step`` looks after. For Slurm 20.11 or newer; accounting (slurmdbd) is used where there.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cluster import array_part
from cluster.job_folder import Attempt, JobFolder, write_atomic
from cluster.processes import Child
from cluster.rendezvous import free_port
from cluster.slurm import errors
from cluster.slurm.script import (
    PASSED_ON,
    cpus_per_task,
    pattern,
    script,
    secrets_of_environment,
    tasks_per_node,
)
from cluster.slurm.states import FIELDS, UNKNOWN_ID, Row, from_sacct, from_squeue, status
from cluster.slurm.step import NAME
from cluster.spec import JobError, JobSpec, Status

ANSWER_S = 120.0  # a busy controller takes its time; sbatch itself gives up earlier
DEFAULTS = {
    "account": "SBATCH_ACCOUNT",
    "partition": "SBATCH_PARTITION",
    "qos": "SBATCH_QOS",
}  # of the submitter


class SlurmLauncher:
    """See ``cluster.launchers.Launcher``; the scheduler's id is the job id that sbatch prints."""

    def render(self, spec: JobSpec) -> str:
        """The batch script."""
        return script(spec)

    def submit(self, spec: JobSpec, after: Sequence[str]) -> str:
        """Write the script into the job's folder and give it to sbatch.

        Predecessors that have succeeded are left out, as Slurm may have forgotten them.

        Raises:
            JobError: Slurm is not there or refuses; names the field of the job file.
        """
        place, environment = JobFolder(spec.folder), submitter_environment(spec)
        write_atomic(place.script, self.render(spec))
        place.logs.mkdir(parents=True, exist_ok=True)
        words = ["--parsable", "--export=ALL"]
        folders = spec.after if len(spec.after) == len(after) else (None,) * len(after)
        waits = [
            i for i, folder in zip(after, folders, strict=True) if folder is None or not _succeeded(folder)
        ]
        if waits:
            words += [f"--dependency=afterok:{':'.join(waits)}", "--kill-on-invalid-dep=yes"]
        self._try(spec, environment)
        array_part.renew(spec)
        done = _ask("sbatch", *words, str(place.script), environment=environment)
        if done.returncode != 0:
            raise errors.refusal(spec, done.stderr, partitions)
        return done.stdout.strip().split(";")[0]  # a cluster's name may follow

    def states(self, jobs: Mapping[str, JobSpec]) -> dict[str, Status]:
        """How jobs stand: one squeue, and one sacct for those that the controller has forgotten."""
        if not jobs:
            return {}
        rows = list(_squeue(list(jobs)))
        missing = sorted(set(jobs) - {row.job_id for row in rows})
        if missing:
            rows += _sacct(missing)
        found: dict[str, list[Row]] = {job_id: [] for job_id in jobs}
        for row in rows:
            found.setdefault(row.job_id, []).append(row)
        return {job_id: status(found[job_id], spec) for job_id, spec in jobs.items()}

    def cancel(self, spec: JobSpec, scheduler_id: str) -> None:
        """Take what waits out of the queue, and ask what runs for a checkpoint; its supervisor kills what is still
        there after the grace time."""
        place = JobFolder(spec.folder)
        _scancel("--state=PENDING", scheduler_id)
        _scancel("--batch", "--signal=USR1", "--state=RUNNING", scheduler_id)
        alive = any(row.alive for row in _squeue([scheduler_id]))
        outcome = place.outcome()
        if not alive and (outcome is None or outcome.state == "preempted"):
            place.write_outcome("cancelled", 0, "cancelled while nothing of it ran")

    def _try(self, spec: JobSpec, environment: Mapping[str, str]) -> None:
        """Refuse what could never start: sbatch takes it, and it would wait for ever."""
        place = JobFolder(spec.folder)
        done = _ask("sbatch", "--test-only", str(place.script), environment=environment)
        if done.returncode != 0 and "Requested node configuration" in done.stderr:
            raise errors.refusal(spec, done.stderr, partitions)


def children(spec: JobSpec, attempt: Attempt) -> list[Child]:
    """One srun for all ranks, or for the one task of another job; called on the job's first node."""
    environment = {"MASTER_ADDR": _own_address(), "MASTER_PORT": str(free_port())} if spec.ranks else {}
    place = JobFolder(spec.folder)
    place.logs.mkdir(parents=True, exist_ok=True)  # a task whose output cannot be opened is not started
    words = (sys.executable, "-P", "-m", "cluster.slurm.step", *srun(spec), *_command(spec))
    return [Child(words, place.log, environment)]


def srun(spec: JobSpec) -> list[str]:
    """The words before the command: tasks, their output, and the container of pyxis."""
    nodes = spec.resources.nodes if spec.ranks else 1
    words = [
        "srun",
        f"--job-name={NAME}",
        f"--nodes={nodes}",
        f"--ntasks={nodes * tasks_per_node(spec)}",
        f"--ntasks-per-node={tasks_per_node(spec)}",
        f"--cpus-per-task={cpus_per_task(spec)}",
        "--export=ALL",  # of the supervisor; the submitter's was left behind by sbatch
        "--kill-on-bad-exit=0",  # see cluster.slurm.step
        "--wait=0",
        "--open-mode=append",
        f"--output={pattern(JobFolder(spec.folder).logs)}/rank-%t.log",
    ]
    if spec.slurm.container == "pyxis":
        names = sorted({"PYTHONPATH", "PYTHONSAFEPATH", "PYTHONUNBUFFERED", *spec.environment, *spec.secrets})
        words += [
            f"--container-image={spec.image}",
            f"--container-mounts={','.join(mounts(spec))}",
            f"--container-workdir={spec.workdir}",
            f"--container-env={','.join(names)}",  # else the image's own values win
        ]
    return words


def mounts(spec: JobSpec) -> list[str]:
    """What a container sees: what the job file says; the job's folder, code and working directory as they are."""
    inside = [mount.split(":")[1] for mount in spec.mounts]
    own = dict.fromkeys(str(path) for path in (spec.folder, spec.code, spec.workdir) if path is not None)
    found = list(spec.mounts)
    for path in sorted(own, key=len):
        if not any(f"{path}/".startswith(f"{there.rstrip('/')}/") for there in inside):
            found.append(f"{path}:{path}")
            inside.append(path)
    return found


def partitions() -> list[str]:
    """Names of the cluster's partitions; none where it does not say."""
    with contextlib.suppress(JobError):
        listed = _ask("sinfo", "--noheader", "--format=%R").stdout.split()
        return sorted(set(listed))
    return []


def submitter_environment(spec: JobSpec) -> dict[str, str]:
    """What sbatch may know of the submitter, and so all that travels: ``--export=ALL`` of this.

    Naming the variables alone would do, but then Slurm starts a login shell on the node to find the rest, which
    takes seconds, or fails. SBATCH_ variables, which would override the script, stay behind but for defaults of
    what it leaves open.

    Raises:
        JobError: a variable that a secret names is not set here.
    """
    wanted = secrets_of_environment(spec.secrets)
    for name in wanted:
        if name not in os.environ:
            variable = next(v for v, reference in spec.secrets.items() if reference == f"env:{name}")
            raise JobError(
                f"secrets.{variable}: {name} is not set where the job is submitted; export it, or use file:PATH"
            )
    defaults = (variable for name, variable in DEFAULTS.items() if not getattr(spec.slurm, name))
    names = ("SLURM_CONF", *PASSED_ON, *wanted, *defaults)
    return {name: os.environ[name] for name in names if name in os.environ}


def _command(spec: JobSpec) -> list[str]:
    if spec.slurm.container == "none":
        return list(spec.command)
    inside = [spec.slurm.container_python, *spec.command[1:]]
    if spec.slurm.container == "pyxis":
        return inside
    binds = [word for mount in mounts(spec) for word in ("--bind", mount)]
    gpus = ["--nv"] if spec.resources.gpus_per_process or spec.slurm.gres else []
    return ["apptainer", "exec", *gpus, *binds, "--pwd", str(spec.workdir), spec.image, *inside]


def _own_address() -> str:
    """Where the ranks of other nodes find this one: its address in Slurm's configuration."""
    node = os.environ.get("SLURMD_NODENAME", "")
    with contextlib.suppress(JobError):
        for word in _ask("scontrol", "show", "node", "--oneliner", node).stdout.split():
            if word.startswith("NodeAddr="):
                return word.removeprefix("NodeAddr=")
    return socket.gethostname()


def _succeeded(folder: Path) -> bool:
    outcome = JobFolder(folder).outcome()
    return outcome is not None and outcome.state == "succeeded"


def _squeue(ids: Sequence[str]) -> Iterator[Row]:
    """A row for each job, and for each part of an array, that the controller remembers.

    Raises:
        JobError: it cannot be asked.
    """
    words = ("--noheader", "--array", "--states=all", f"--jobs={','.join(ids)}", f"--Format={FIELDS}")
    done = _ask("squeue", *words)
    if done.returncode != 0 and UNKNOWN_ID not in done.stderr:
        raise errors.no_answer(done.stderr)
    yield from from_squeue(done.stdout)


def _sacct(ids: Sequence[str]) -> list[Row]:
    """The same from accounting; nothing where there is none."""
    words = (
        "--noheader",
        "--parsable2",
        "--allocations",
        "--array",
        "--duplicates",
        f"--jobs={','.join(ids)}",
    )
    with contextlib.suppress(JobError):
        done = _ask("sacct", *words, "--format=JobID,State,ExitCode")
        if done.returncode == 0:
            return list(from_sacct(done.stdout))
    return []


def _scancel(*words: str) -> None:
    """scancel; that a job has ended is no error.

    Raises:
        JobError: the controller cannot be asked.
    """
    done = _ask("scancel", *words)
    if done.returncode != 0 and any(said in done.stderr for said in errors.NO_ANSWER):
        raise errors.no_answer(done.stderr)


def _ask(*words: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program of Slurm and take what it says.

    Raises:
        JobError: it is not installed, or takes longer than ANSWER_S.
    """
    try:
        return subprocess.run(
            words,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=ANSWER_S,
            env=environment,
        )
    except FileNotFoundError as error:
        raise errors.not_installed(words[0]) from error
    except subprocess.TimeoutExpired as error:
        raise errors.no_answer(f"{words[0]}: nothing within {ANSWER_S:g} s") from error
