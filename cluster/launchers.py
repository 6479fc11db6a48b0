"""Where jobs run: the seam that every scheduler fits, and the table that names them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cluster.local import LocalLauncher
from cluster.spec import JobSpec, State


class Launcher(Protocol):
    """Turns a job into what a scheduler takes, hands it over, and asks after it."""

    def render(self, spec: JobSpec) -> str:
        """The job script; pure, so that it can be read before it is sent."""

    def submit(self, spec: JobSpec) -> str:
        """Start the job and return its id."""

    def state(self, job_id: str) -> State:
        """How the job stands."""

    def cancel(self, job_id: str) -> None:
        """Ask the job to end (SIGTERM), so that it can write a checkpoint; nothing happens if it has ended."""


LAUNCHERS: dict[str, Callable[[], Launcher]] = {"local": LocalLauncher}
