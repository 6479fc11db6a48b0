"""What a job is, wherever it runs: a command, a folder of its own, an environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

State = Literal["unknown", "running", "succeeded", "failed", "lost"]
"""``lost``: it started, left no exit code and is no longer there (killed, or the machine went down)."""


@dataclass(frozen=True)
class JobSpec:
    """One job. ``command`` is run from the directory of the submitter; script, log and outcome lie in ``folder``,
    which is also the job's id on this machine; ``environment`` is added to the submitter's."""

    name: str
    command: tuple[str, ...]
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
