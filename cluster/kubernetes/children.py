"""The processes of one attempt in one pod, and the mark that says since when they run."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cluster.job_folder import ENV_FOLDER, ENV_TOKEN, Attempt, JobFolder
from cluster.kubernetes.pods import MASTER_PORT
from cluster.processes import Child
from cluster.secret_values import secret_values
from cluster.spec import JobSpec


def children(spec: JobSpec, attempt: Attempt) -> list[Child]:
    """One process, or a training's ranks where they all fit into this pod; the supervisor adds its environment."""
    mark().touch()
    place, command = JobFolder(spec.folder), own_words(spec.command)
    if not spec.ranks:
        return [Child(command, place.rank_log(0))]
    master = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": os.environ.get("MASTER_PORT", str(MASTER_PORT))}
    return [
        Child(command, place.rank_log(rank), variables | master)
        for rank, variables in ranks_of_node(spec, 0).items()
    ]


def node_children(spec: JobSpec, node: int, token: str) -> list[Child]:
    """The ranks of one node of several, with all that they need; MASTER_ADDR and MASTER_PORT are the pod's own."""
    mark().touch()
    place, command = JobFolder(spec.folder), own_words(spec.command)
    own = {ENV_FOLDER: str(spec.folder), ENV_TOKEN: token, "PYTHONUNBUFFERED": "1"}
    if spec.code is not None:
        own |= {"PYTHONPATH": str(spec.code), "PYTHONSAFEPATH": "1"}
    given = {**spec.environment, **secret_values(spec.secrets, os.environ)}
    return [
        Child(command, place.rank_log(rank), {**given, **variables, **own})
        for rank, variables in ranks_of_node(spec, node).items()
    ]


def ranks_of_node(spec: JobSpec, node: int) -> Mapping[int, dict[str, str]]:
    """The ranks of a node, each with what torchrun would tell it."""
    local, nodes = spec.resources.processes_per_node, spec.resources.nodes
    made = {}
    for index in range(local):
        rank = node * local + index
        values = {
            "RANK": rank,
            "LOCAL_RANK": index,
            "NODE_RANK": node,
            "GROUP_RANK": node,
            "WORLD_SIZE": nodes * local,
            "LOCAL_WORLD_SIZE": local,
            "OMP_NUM_THREADS": spec.resources.cpus_per_process,
        }
        made[rank] = {name: str(value) for name, value in values.items()}
    return made


def own_words(command: tuple[str, ...]) -> tuple[str, ...]:
    """A command with this pod's interpreter where the submitter's stands."""
    if Path(command[0]).name.startswith("python"):
        return (sys.executable, *command[1:])
    return command


def mark() -> Path:
    """A file of this pod that is as old as the processes of its attempt; not there before the first."""
    return Path(tempfile.gettempdir()) / "castbank-started"
