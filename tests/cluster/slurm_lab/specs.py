"""Job specs: four whose scripts are kept, and any number with every kind of text that a person may write."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from cluster.spec import JobSpec, Resources, SlurmOptions, Stopping

MINIMAL = JobSpec(
    "first-3f2a",
    "first",
    "slurm",
    ("/opt/venv/bin/python", "-P", "-m", "jobs", "train", "--config", "/data/runs/first/job/config.yaml"),
    Path("/data/runs/first"),
    Path("/home/ada"),
)
TRAINING = replace(
    MINIMAL,
    name="first try; rm -rf $HOME 'x' \"q\" \\ # % é",
    folder=Path("/data/runs/50% more"),
    code=Path("/data/runs/50% more/job/code"),
    environment={"NCCL_SOCKET_IFNAME": "ib0", "NOTE": "it's $HOME\nand `id`"},
    secrets={"MLFLOW_TRACKING_TOKEN": "env:MY_TOKEN", "HF_TOKEN": "file:/home/ada/.hf"},
    resources=Resources(2, 4, 8, 1, 120.5, 240),
    ranks=True,
    priority=-10,
    slurm=SlurmOptions(
        "gpu", "vision", "long", "a100&ib", "week 7", "gpu:a100:4", "n[3-4],n9", extra=("--exclusive",)
    ),
)
ARRAY = replace(
    MINIMAL,
    command=(*MINIMAL.command[:4], "evaluate", "part={part}"),
    array=8,
    resources=Resources(processes_per_node=2, cpus_per_process=2),
    preemptible=False,
)
CONTAINER = replace(
    TRAINING,
    name="contained",
    folder=Path("/data/runs/c"),
    code=Path("/data/runs/c/job/code"),
    environment={"LEVEL": "3"},
    secrets={},
    image="nvcr.example/pytorch:25.01",
    mounts=("/data:/data", "/scratch:/tmp/cache:ro"),
    slurm=SlurmOptions(container="pyxis", container_python="/usr/bin/python3"),
)
NASTY = (
    "; rm -rf $HOME", "a 'b' \"c\"", "\\", "\\\\n", "# no comment", "%j %a 50%", "`id`", "$(id)", "é ü 漢字",
    "a,b=c", "-x", "--job-name=z", "&& false", "{part}", "x" * 200, "*", "~", "!!", "<in >out", "|cat", "'", '"',
)  # fmt: skip


def text(pick: random.Random) -> str:
    """Printable text of a few nasty parts, never blank at its ends."""
    return " ".join(pick.choice(NASTY) for _ in range(pick.randint(1, 3)))


def path(pick: random.Random) -> str:
    """The last part of a path: no slash, no backslash, which Slurm cannot have."""
    return text(pick).replace("\\", "").replace("/", "") or "folder"


def fuzzed(pick: random.Random, folder: Path, python: str) -> JobSpec:
    """A spec that the lab's cluster could run. python: what stands for the interpreter."""
    array, preemptible = pick.choice((0, 0, 3)), pick.random() < 0.5
    return JobSpec(
        id=f"fuzzed-{pick.randrange(16**4):04x}",
        name=text(pick),
        place="slurm",
        command=(python, *(text(pick) for _ in range(pick.randint(1, 4)))),
        folder=folder / path(pick),
        workdir=folder / path(pick),
        code=folder / "code" if pick.random() < 0.5 else None,
        environment={f"V{k}": text(pick) + pick.choice(("", "\n", "\tx")) for k in range(pick.randint(0, 3))},
        secrets=pick.choice(({}, {"TOKEN": "env:HOME"}, {"TOKEN": "file:/nowhere"})),
        resources=Resources(
            nodes=pick.randint(1, 2),
            processes_per_node=pick.randint(1, 2),
            cpus_per_process=pick.randint(1, 2),
            memory_gib=pick.choice((0.0, 0.5, 1.25)),
            time_limit_min=pick.choice((0, 5, 60)),
        ),
        stopping=Stopping(grace_s=pick.choice((10, 120))),
        ranks=array == 0 and pick.random() < 0.5,
        array=array,
        priority=-pick.randint(0, 100),
        preemptible=preemptible,
        slurm=SlurmOptions(
            partition=pick.choice(("", "debug")),
            exclude=pick.choice(("", "n2")) if array else "",
            extra=pick.choice(((), ("--comment=" + text(pick),))),
        ),
    )
