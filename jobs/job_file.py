"""A job file: one job or a chain of them, with what each needs, as a person writes it; checked and resolved.

What stands at the top holds for every step; a step may say otherwise. A preparation with ``array: N`` becomes two
jobs: N that analyse a share of the clips each, and one after them that links, selects and packs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from cluster.spec import PART, KubernetesOptions, RayOptions, Resources, Retry, SlurmOptions, Stopping
from data_prep.records import InputError
from jobs import config as configs

MAX_NAME = 200


@dataclass(frozen=True)
class Step:
    """One job, as far as a job file says it."""

    command: tuple[str, ...] = ()  # castbank's own words, for example [train, --config, train.yaml]
    keys: dict[str, Any] = field(
        default_factory=dict
    )  # over that verb's configuration, as key=value would be
    array: int = 0  # processes that share a preparation; 0: one does it all
    environment: dict[str, str] = field(default_factory=dict)  # variables for the job's processes
    secrets: dict[str, str] = field(
        default_factory=dict
    )  # variable to where its value is: env:NAME, file:PATH, kubernetes:SECRET/KEY
    image: str = ""  # container image, where the place runs containers
    mounts: tuple[str, ...] = ()  # HOST:CONTAINER[:ro] for the container
    priority: int = 0  # higher goes first, within what the scheduler grants
    preemptible: bool = True  # may be stopped and put back in the queue; it goes on from its checkpoint
    resources: Resources = field(default_factory=Resources)
    retry: Retry = field(default_factory=Retry)
    stopping: Stopping = field(default_factory=Stopping)
    slurm: SlurmOptions = field(default_factory=SlurmOptions)
    ray: RayOptions = field(default_factory=RayOptions)
    kubernetes: KubernetesOptions = field(default_factory=KubernetesOptions)


@dataclass(frozen=True)
class JobFile(Step):
    """A whole job file."""

    name: str = "???"  # for people and schedulers
    folder: str = "???"  # of the job and of its training's results; must be seen by all nodes under this path
    workdir: str = ""  # where commands run, so that relative paths mean what they mean here; empty: here
    steps: dict[str, Any] = field(
        default_factory=dict
    )  # a chain instead of one command: name to what differs from the above, and after: [names]


@dataclass(frozen=True)
class Planned:
    """One job to be submitted. label: its place in the chain, empty for a single job; after: labels."""

    label: str
    name: str
    folder: Path
    workdir: Path
    step: Step
    after: tuple[str, ...]


def read(path: Path, overrides: Sequence[str]) -> list[Planned]:
    """The jobs of a job file, each after those it waits for.

    Raises:
        InputError: unknown key, wrong type or value, a chain that is none.
    """
    made = configs.load(JobFile, path, overrides)
    source = f"job file {str(path)!r}"
    _check_top(made, source)
    folder, workdir = Path(made.folder).resolve(), Path(made.workdir or ".").resolve()
    if not made.steps:
        return _with_parts([Planned("", made.name, folder, workdir, made, ())], source)
    planned: list[Planned] = []
    for label, said in made.steps.items():
        if not isinstance(said, dict):
            raise InputError(f"{source}: steps.{label}: came {said!r}; a step holds keys such as command")
        own = dict(said)
        after = own.pop("after", [planned[-1].label] if planned else [])
        _check_after(source, label, after, [p.label for p in planned])
        step = configs.merged(Step, [(source, _shared(made)), (f"{source}: steps.{label}", own)])
        planned.append(
            Planned(label, f"{made.name}-{label}", folder / label, workdir, step, tuple(map(str, after)))
        )
    return _with_parts(planned, source)


def _check_top(made: JobFile, source: str) -> None:
    if not made.name.strip() or not made.name.isprintable() or len(made.name) > MAX_NAME:
        raise InputError(
            f"{source}: name: came {made.name!r}; give 1 to {MAX_NAME} printable characters on one line"
        )
    if not made.folder.isprintable() or not made.folder.strip():
        raise InputError(f"{source}: folder: came {made.folder!r}; give a path of printable characters")
    if bool(made.command) == bool(made.steps):
        which = "both are given" if made.steps else "neither is given"
        raise InputError(f"{source}: command or steps: {which}; give one of them")


def _check_after(source: str, label: str, after: Any, known: list[str]) -> None:
    if not label.replace("-", "").replace("_", "").isalnum():
        raise InputError(
            f"{source}: steps.{label}: a step's name is a folder's too: letters, digits, - and _"
        )
    if not isinstance(after, list) or any(item not in known for item in after):
        raise InputError(
            f"{source}: steps.{label}.after: came {after!r}; give a list of steps above it: {known}"
        )


def _shared(made: JobFile) -> dict[str, Any]:
    """What the top of the file says for every step."""
    values = dataclasses.asdict(made)
    return {item.name: values[item.name] for item in fields(Step) if item.name not in ("command", "keys")}


def _with_parts(planned: Sequence[Planned], source: str) -> list[Planned]:
    """The same chain, with each preparation by an array as two jobs."""
    made: list[Planned] = []
    for plan in planned:
        check_values(plan.step, f"{source}: {f'steps.{plan.label}.' if plan.label else ''}")
        if not plan.step.array:
            made.append(plan)
            continue
        words = plan.step.command
        if PART not in " ".join(words) and words[:1] != ("prepare",):
            raise InputError(
                f"{source}: array={plan.step.array}: the command {' '.join(words)!r} has no {PART} that tells its "
                "processes apart; arrays are for prepare"
            )
        if PART in " ".join(words):
            made.append(plan)
            continue
        parts_step = dataclasses.replace(plan.step, command=(*words, "--part", PART))
        label = f"{plan.label or 'prepare'}-parts"
        parts = dataclasses.replace(
            plan,
            label=label,
            name=f"{plan.name}-parts",
            folder=plan.folder.with_name(f"{plan.folder.name}-parts"),
            step=parts_step,
        )
        whole = dataclasses.replace(plan, step=dataclasses.replace(plan.step, array=0), after=(label,))
        made += [parts, whole]
    twice = [plan.label for plan in made if sum(plan.folder == other.folder for other in made) > 1]
    if twice:
        raise InputError(
            f"{source}: steps.{twice[0]}: that name is taken by the parts of an array; rename it"
        )
    return made


def check_values(step: Step, where: str) -> None:
    """Raise InputError for what no job can ask for."""
    least = {
        "resources.nodes": 1,
        "resources.processes_per_node": 1,
        "resources.cpus_per_process": 1,
        "resources.gpus_per_process": 0,
        "resources.memory_gib": 0,
        "resources.time_limit_min": 0,
        "retry.max_failures": 1,
        "retry.max_without_progress": 1,
        "retry.backoff_s": 0,
        "stopping.grace_s": 1,
        "stopping.hang_s": 1,
        "array": 0,
    }
    for key, value in least.items():
        section, _, name = key.rpartition(".")
        came = getattr(getattr(step, section) if section else step, name)
        if not value <= came < math.inf:
            raise InputError(f"{where}{key}={came}: must be a number of at least {value}")
    if not step.command:
        raise InputError(f"{where}command: empty; give castbank's words, such as [train, --config, FILE]")
