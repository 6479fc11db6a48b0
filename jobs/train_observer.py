"""What is done with what the first rank of a training reports: metrics file, progress line, tracker."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from jobs.progress import ProgressBar
from pipeline.config import TrainConfig

if TYPE_CHECKING:
    from pipeline.ranks.rank import Rank
    from pipeline.tracking.tracker import TrackedRun

METRICS = "metrics.jsonl"


def recorded(rank: Rank, config: TrainConfig) -> Rank:
    """The rank, with each reported step in the metrics file first: no checkpoint is ahead of it."""
    from pipeline.training.run_folder import MetricsFile
    from pipeline.training.stability import Incident
    from pipeline.training.trainer import StepDone

    folder = Path(config.run)
    metrics = MetricsFile(folder / METRICS)
    kept = {kind: MetricsFile(folder / f"{kind}.jsonl") for kind in ("nonfinite", "spikes")}

    def report(event: Any) -> None:
        if isinstance(event, StepDone):
            metrics.append(event.step, event.scalars)
        if isinstance(event, Incident):
            kept[event.kind].append(event.step, event.record)
        rank.report(event)

    return replace(rank, report=report)


class Observer:
    """Receives what the first rank reports: progress line and tracker."""

    def __init__(
        self, config: TrainConfig, run: TrackedRun, totals: Callable[[], Mapping[str, float]] = dict
    ) -> None:
        """``totals``: figures of the whole run, asked for at the end."""
        from pipeline.tracking.tracker import TRACKERS

        self._total, self._bar = config.num_steps, ProgressBar()
        self._tracker = TRACKERS[config.tracking.kind](config.tracking, run)
        self._untold: Path | None = run.folder / METRICS
        self._totals = totals
        self.code = 0

    def __enter__(self) -> Observer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        self._catch_up()
        if totals := self._totals():
            self._tracker.totals(totals)
        stopped = self.code != 0 or (kind is not None and issubclass(kind, KeyboardInterrupt))
        self._tracker.close("KILLED" if stopped else "FAILED" if kind else "FINISHED")

    def __call__(self, event: Any) -> None:
        from jobs.train_pictures import Shown
        from pipeline.training.stability import Incident
        from pipeline.training.trainer import Note, StepDone

        if isinstance(event, StepDone):
            self._catch_up()
            self._tracker.log(event.step, event.scalars)
            self._bar("train", event.step, self._total, f"loss {event.scalars.get('loss', math.nan):.4f}")
        elif isinstance(event, Note | Incident):
            self.say(event.text)
        elif isinstance(event, Shown):
            self.show(event.path)

    def _catch_up(self) -> None:
        """Log the steps that were recorded by an attempt that died before telling; not before the first step, as
        a tracker may start a thread, and a rank in this process forks its loading processes before that."""
        from pipeline.training.run_folder import read_metrics

        lines = read_metrics(self._untold) if self._untold else []
        self._untold = None
        for line in lines:
            self._tracker.log(int(line["step"]), line)

    def show(self, path: Path) -> None:
        """A sample video or picture, for the tracker; those of a step in a folder of their own."""
        inner = path.parent.name if path.parent.name.startswith("step-") else ""
        self._tracker.artifact(path, f"samples/{inner}" if inner else "samples")

    def exported(self, folder: Path) -> None:
        """The finished export, for the tracker's registry of models."""
        self._tracker.model(folder)

    def say(self, text: str) -> None:
        """One line for the person who watches."""
        sys.stderr.write(f"castbank train: {text}\n")
