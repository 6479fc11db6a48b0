"""What a job is, wherever it runs: a command, a folder of its own, what it needs, what happens when it fails.

The sections of a job file are declared here, each knob once with its default, unit and reason. A ``JobSpec`` is
what is left when everything is resolved; it travels to the place where the job runs as ``job/spec.json``.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import types
import typing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

Place = Literal["local", "slurm", "ray", "kubernetes"]
State = Literal["queued", "running", "succeeded", "failed", "cancelled", "preempted", "lost", "unknown"]
"""``preempted``: it stopped on request after a checkpoint and goes on when asked (or when its scheduler requeues
it); ``lost``: it started, left no outcome and is no longer there; ``unknown``: its scheduler does not know it."""

LIVE: frozenset[State] = frozenset({"queued", "running"})
EXIT_INPUT, EXIT_EMPTY, EXIT_REQUEUE = 2, 3, 75  # castbank's own exit codes; 75 is EX_TEMPFAIL
EXIT_KILLED = 128 + signal.SIGKILL  # as a shell says it
PART = "{part}"  # in the words of an array: which part this is, and of how many


class JobError(Exception):
    """Something about a job that its owner can mend: says what, where, what came and what to do."""


@dataclass(frozen=True)
class Status:
    """How a job stands at its scheduler. detail: the scheduler's own word, such as a reason for waiting."""

    state: State
    detail: str = ""


@dataclass(frozen=True)
class Resources:
    """What the job needs; the number of processes of a training is nodes x processes_per_node."""

    nodes: int = 1
    processes_per_node: int = 1  # ranks; one per GPU as a rule
    cpus_per_process: int = 1
    gpus_per_process: int = 0
    memory_gib: float = 0.0  # per node; 0: the scheduler's default
    time_limit_min: int = 0  # 0: the scheduler's default


@dataclass(frozen=True)
class Retry:
    """What happens when an attempt fails; bad input (exit codes 2 and 3) is never tried again."""

    max_failures: int = 5  # failed attempts after which the job has failed
    max_without_progress: int = 3  # failures in a row at the same step: a crash loop, which ends the job
    backoff_s: float = 10.0  # before the next attempt; doubles with each failure in a row
    on_exit_codes: tuple[int, ...] = ()  # only these are tried again; empty: all but 2 and 3


@dataclass(frozen=True)
class Stopping:
    """How a job is asked to end, and when it is no longer waited for."""

    grace_s: int = 120  # from the signal to a kill; schedulers are told to signal this long before a limit
    hang_s: int = 1800  # a rank that is silent for longer is hung: its attempt ends and counts as failed


@dataclass(frozen=True)
class SlurmOptions:
    """For sbatch; empty values are left to the cluster."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    reservation: str = ""
    gres: str = ""  # per node, for example gpu:a100:8; empty: gpu:N where gpus_per_process is given
    exclude: str = ""  # nodes to stay away from
    container: Literal["none", "pyxis", "apptainer"] = "none"  # how image is run
    container_python: str = "python3"  # the interpreter in the image
    extra: tuple[str, ...] = ()  # further options, each as one word: --comment=x


@dataclass(frozen=True)
class RayOptions:
    """For Ray's job server."""

    address: str = (
        ""  # of the job server, for example http://head:8265; empty: RAY_ADDRESS, else this machine
    )
    placement: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"  # of a training's ranks
    min_processes: int = 0  # elastic: go on with as few ranks when nodes are gone; 0: always all


@dataclass(frozen=True)
class KubernetesOptions:
    """For the cluster that kubectl talks to."""

    context: str = ""  # of the kubeconfig; empty: its current one
    namespace: str = "default"
    kind: Literal["auto", "job", "jobset", "pytorchjob", "rayjob"] = (
        "auto"  # auto: rayjob for preparation, jobset for several nodes, else an indexed job
    )
    queue: str = ""  # Kueue LocalQueue
    service_account: str = ""
    image_pull_secret: str = ""
    volume: str = ""  # PersistentVolumeClaim that holds the job's folder and data
    volume_path: str = "/data"  # where it is mounted
    shared_memory_gib: float = 8.0  # /dev/shm; NCCL and loading processes need more than the 64 MiB default
    node_selector: dict[str, str] = field(default_factory=dict)
    run_as_user: int = 1000


@dataclass(frozen=True)
class JobSpec:
    """One job, resolved.

    ``command`` (all its words; the first is the interpreter) is run in ``workdir`` with ``environment`` added.
    ``folder`` is absolute and on a file system that the submitter and every node see; what belongs to the job and
    not to its results lies in ``folder/job``. ``secrets`` maps a variable to where its value is found when the job
    runs: ``env:NAME``, ``file:PATH`` or ``kubernetes:SECRET/KEY``. ``array``: 0, or how many processes run the
    command with ``{part}`` replaced by ``1/array`` ... ``array/array``. ``after``: folders of jobs that must have
    succeeded. ``ranks``: whether the command is a training that runs as several processes with a rendezvous.
    """

    id: str
    name: str
    place: Place
    command: tuple[str, ...]
    folder: Path
    workdir: Path
    code: Path | None = None  # the snapshot, put before everything else on PYTHONPATH
    environment: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    retry: Retry = field(default_factory=Retry)
    stopping: Stopping = field(default_factory=Stopping)
    ranks: bool = False
    array: int = 0
    after: tuple[Path, ...] = ()
    image: str = ""
    mounts: tuple[str, ...] = ()  # HOST:CONTAINER[:ro]
    priority: int = 0
    preemptible: bool = True
    slurm: SlurmOptions = field(default_factory=SlurmOptions)
    ray: RayOptions = field(default_factory=RayOptions)
    kubernetes: KubernetesOptions = field(default_factory=KubernetesOptions)

    @property
    def world(self) -> int:
        """Processes of the job: its ranks, the parts of an array, or one."""
        if self.array:
            return self.array
        return self.resources.nodes * self.resources.processes_per_node if self.ranks else 1

    def part_command(self, number: int) -> tuple[str, ...]:
        """What part ``number`` of an array runs, counted from 1."""
        return tuple(word.replace(PART, f"{number}/{self.array}") for word in self.command)


def to_json(spec: Any) -> str:
    """A dataclass of this module as JSON that ``from_json`` reads back to an equal object."""
    return json.dumps(dataclasses.asdict(spec), indent=1, sort_keys=True, default=str)


def from_json(text: str) -> JobSpec:
    """The spec that ``to_json`` wrote; what another version wrote beyond the fields that there are is left out.

    Raises:
        JobError: it is no spec, or lacks what this version must know.
    """
    try:
        made = _made(JobSpec, json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        raise JobError(
            f"spec.json was written by another version of castbank, or is torn ({error}); submit the job file again"
        ) from error
    assert isinstance(made, JobSpec)
    return made


@cache
def _hints(schema: type) -> dict[str, Any]:
    return typing.get_type_hints(schema)


def _made(hint: Any, value: Any) -> Any:
    """``value`` of JSON as what a type annotation asks for; only the kinds of type that a JobSpec has."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise TypeError(f"{str(value)[:40]!r} came for a mapping")
        hints = _hints(typing.cast(type, hint))
        known = {name: _made(hints[name], item) for name, item in value.items() if name in hints}
        return typing.cast(type, hint)(**known)
    if hint is Path:
        return Path(value)
    if origin is tuple:
        return tuple(_made(arguments[0], item) for item in value)
    if origin is types.UnionType:
        return None if value is None else _made(arguments[0], value)
    return value
