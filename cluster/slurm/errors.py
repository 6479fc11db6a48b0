"""sbatch's refusals, said so that the owner of a job file knows which line to change.

The words on the left are Slurm's own (``slurm_errno.c``, 22.05); where none fits, its whole answer is passed on.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

from cluster.spec import JobError, JobSpec

NO_ANSWER = ("Unable to contact slurm controller", "Unable to connect to database", "Zero Bytes were transmitted",
             "Connection refused", "Socket timed out")  # fmt: skip


def not_installed(program: str) -> JobError:
    """A program of Slurm is not there."""
    return JobError(
        f"slurm: {program} is not installed here, or not on PATH; submit from a login node of the cluster"
    )


def no_answer(said: str) -> JobError:
    """The controller cannot be asked."""
    return JobError(
        f"slurm: the controller does not answer ({_first(said)}); nothing was changed. scontrol ping says which "
        "controller is meant; try again when it is up"
    )


def refusal(spec: JobSpec, said: str, partitions: Callable[[], Sequence[str]]) -> JobError:
    """What sbatch said, as an error of the job file. partitions: asks which there are, where that matters."""
    if any(words in said for words in NO_ANSWER):
        return no_answer(said)
    if "nvalid partition" in said:
        there = ", ".join(partitions()) or "none that you may use"
        return JobError(f"slurm.partition: {spec.slurm.partition!r} does not exist; there are: {there}")
    for words, text in _table(spec):
        if words.lower() in said.lower():
            return JobError(f"{text} (Slurm: {_first(said)})")
    script = shlex.quote(str(spec.folder / "job" / "script"))
    return JobError(
        f"slurm: sbatch refuses the job: {_first(said)}; to repeat it: sbatch --test-only {script}"
    )


def _table(spec: JobSpec) -> list[tuple[str, str]]:
    """A part of what sbatch says, and what it means for a job file."""
    slurm = spec.slurm
    where = f"partition {slurm.partition!r}" if slurm.partition else "the default partition"
    return [
        *_resources(spec, where),
        (
            "Invalid feature",
            f"slurm.constraint: no node has the feature {slurm.constraint!r}; sinfo -o '%N %f' lists them",
        ),
        (
            "reservation",
            f"slurm.reservation: {slurm.reservation!r} is not there, or not for you; scontrol show reservation",
        ),
        ("Invalid node name", f"slurm.exclude: {slurm.exclude!r} names an unknown node; sinfo -N lists them"),
        (
            "Invalid account",
            f"slurm.account: {slurm.account!r} is not yours, or not for {where}; sacctmgr show assoc user=$USER",
        ),
        (
            "Invalid qos",
            f"slurm.qos: {slurm.qos!r} is not there, or not for you; sacctmgr show assoc user=$USER format=qos",
        ),
        (
            "accounting/QOS policy",
            "slurm.qos: a limit of the account or QOS is reached or would be passed; ask for less, wait until "
            "other jobs have ended, or choose another QOS",
        ),
        (
            "Invalid job array",
            f"array: {spec.array} parts are more than this cluster takes; scontrol show config | grep MaxArraySize",
        ),
        (
            "ependency",
            "after: Slurm does not take these jobs as predecessors; castbank status says how they stand",
        ),
        ("unrecognized option", f"slurm.extra: {' '.join(slurm.extra)} is not understood by this sbatch"),
    ]


def _resources(spec: JobSpec, where: str) -> list[tuple[str, str]]:
    has = spec.resources
    wanted = (
        f"{has.nodes} x {has.processes_per_node} processes with {has.cpus_per_process} CPUs and "
        f"{has.gpus_per_process} GPUs each and {has.memory_gib:g} GiB per node"
    )
    too_much = f"resources: {where} can never give {wanted}; ask for less, sinfo -N -l shows what is there"
    gres = spec.slurm.gres or "gpu"
    memory = f"resources.memory_gib: {has.memory_gib:g} GiB per node is more than a node of {where} has"
    return [
        (
            "Invalid generic resource",
            f"slurm.gres: {where} has no {gres}; sinfo -o '%P %G' lists what there is",
        ),
        ("Memory specification", f"{memory}; sinfo -o '%P %m' lists MiB per node"),
        ("Requested node configuration", too_much),
        ("More processors requested", too_much),
        ("CPU count", too_much),
        (
            "Node count specification",
            f"resources.nodes: {has.nodes} is more than {where} allows; ask for fewer",
        ),
        (
            "time limit is invalid",
            f"resources.time_limit_min: {has.time_limit_min} min is more than {where} allows; sinfo -o '%P %l'",
        ),
    ]


def _first(said: str) -> str:
    """The line that says most, without the program's name."""
    lines = [line.split("error: ", 1)[-1].strip() for line in said.splitlines() if line.strip()]
    failed = [line for line in lines if "failed:" in line]
    return (failed or lines or ["no words"])[0]
