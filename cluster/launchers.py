"""Where jobs run: the two seams that every scheduler fits, and the tables that name them.

A launcher works where the job is submitted: it turns a job into what its scheduler takes, hands it over and asks
after it. A starter works where the job runs: it says which processes one attempt consists of. Between them is
``cluster.supervisor``, the same in every place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Protocol

from cluster.job_folder import Attempt
from cluster.processes import Child
from cluster.spec import JobSpec, Place, Status


class Launcher(Protocol):
    """One scheduler, as a submitter sees it; made with the job's spec where options such as an address matter."""

    def render(self, spec: JobSpec) -> str:
        """What the scheduler is given; pure, so that it can be read before it is sent."""

    def submit(self, spec: JobSpec, after: Sequence[str]) -> str:
        """Hand the job over and return the scheduler's id for it.

        Args:
            spec: with its folder's ``job/spec.json`` and code written.
            after: scheduler's ids of the jobs of ``spec.after``, which must succeed first.

        Raises:
            JobError: the scheduler is not installed, does not answer or refuses; says why and what to do.
        """

    def states(self, jobs: Mapping[str, JobSpec]) -> dict[str, Status]:
        """How jobs stand, by scheduler's id, with as few questions as the scheduler allows.

        Raises:
            JobError: the scheduler cannot be asked.
        """

    def cancel(self, spec: JobSpec, scheduler_id: str) -> None:
        """Ask the job to end, so that it can write a checkpoint first; nothing happens if it has ended."""


Starter = Callable[[JobSpec, Attempt], list[Child]]
"""The processes of one attempt, in the order of their ranks; called where the job runs."""

_LAUNCHERS: dict[Place, tuple[str, str]] = {  # module in cluster/, class
    "local": ("local", "LocalLauncher"),
    "slurm": ("slurm.launcher", "SlurmLauncher"),
    "ray": ("ray_jobs.launcher", "RayLauncher"),
    "kubernetes": ("kubernetes.launcher", "KubernetesLauncher"),
}
_STARTERS: dict[Place, str] = {  # module in cluster/ whose ``children`` it is
    "local": "local",
    "slurm": "slurm.launcher",
    "ray": "ray_jobs.launcher",
    "kubernetes": "kubernetes.children",
}
PLACES: tuple[Place, ...] = tuple(_LAUNCHERS)


def launcher(place: Place) -> Launcher:
    """The launcher of a place; its module is imported only now."""
    module, name = _LAUNCHERS[place]
    made: Launcher = getattr(import_module(f"cluster.{module}"), name)()
    return made


def starter(place: Place) -> Starter:
    """The starter of a place."""
    found: Starter = import_module(f"cluster.{_STARTERS[place]}").children
    return found
