"""Where a run is seen: its losses, parameters, data and pictures. One seam, and the trackers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from data_prep.records import Json
from pipeline.config import TrackingConfig

Status = Literal["FINISHED", "KILLED", "FAILED"]


class Tracker(Protocol):
    """What a training reports to. Calls return at once."""

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Named scalars of one step; a step that was logged before, by a run since resumed, is left out."""

    def artifact(self, path: Path, folder: str) -> None:
        """A file, which must stay where it is, to be shown in a folder of the run."""

    def model(self, folder: Path) -> None:
        """An export, which must stay where it is, to be registered as a version of a model, where one is named."""

    def totals(self, scalars: Mapping[str, float]) -> None:
        """Figures of the whole run so far, such as its cost, at the last step; nothing where nothing was logged."""

    def close(self, status: Status) -> None:
        """Send what is left, for a bounded time; KILLED is a run that will go on."""


@dataclass(frozen=True)
class TrackedRun:
    """What is said about a run once. id: unique; parameters: the flat resolved configuration; tags: short facts;
    dataset_digest: at most 36 characters; profile: counts of the data set."""

    id: str
    folder: Path
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    dataset: Path
    dataset_digest: str
    profile: Json


class NoTracker:
    """Tracks nothing."""

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Nothing."""

    def artifact(self, path: Path, folder: str) -> None:
        """Nothing."""

    def model(self, folder: Path) -> None:
        """Nothing."""

    def totals(self, scalars: Mapping[str, float]) -> None:
        """Nothing."""

    def close(self, status: Status) -> None:
        """Nothing."""


def _mlflow(config: TrackingConfig, run: TrackedRun) -> Tracker:
    from pipeline.tracking.mlflow_tracker import MlflowTracker

    return MlflowTracker(config, run)


TRACKERS: dict[str, Callable[[TrackingConfig, TrackedRun], Tracker]] = {
    "mlflow": _mlflow,
    "none": lambda _config, _run: NoTracker(),
}
