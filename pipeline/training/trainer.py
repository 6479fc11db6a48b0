"""The training loop: it knows steps, named scalars and checkpoints, and no model family, loss or tracker.

Nothing random outlives a step: every step seeds the generators from (seed, step, rank), and an objective draws
from (seed, position). So the step number and DeepSpeed's own state are all that an exact resume needs.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from pipeline.batch import Batch
from pipeline.config import TrainConfig
from pipeline.data.stream import Stream
from pipeline.ranks.rank import EXIT_REQUEUE, Rank
from pipeline.training.checkpoints import Checkpoints, Progress
from pipeline.training.engine import Engine, gather
from pipeline.training.optimizer import learning_rate_scale
from pipeline.training.stability import NonFinite, Pass, SpikeDetector, nonfinite, spike
from pipeline.training.throughput import Speedometer

# what is measured of a step rather than computed, and so differs between runs that learn the same
MEASURED = (
    "step_time_s",
    "data_wait_share",
    "samples_per_s",
    "tokens_per_s",
    "memory_mb",
    "model_tflops_per_s",
)


@dataclass(frozen=True)
class StepDone:
    """Reported by the first rank. step: updates done; scalars: the objective's means over all ranks and passes,
    and step_time_s, data_wait_share (of this rank's step time, in [0,1]), learning_rate_scale, gradient_norm, the
    figures of ``throughput``, and what those who watch have found. Without values that are not finite."""

    step: int
    scalars: Mapping[str, float]


@dataclass(frozen=True)
class Saved:
    """Reported by the first rank after a checkpoint is committed."""

    folder: Path


@dataclass(frozen=True)
class Note:
    """Something a person should read, such as a damaged checkpoint that was passed over."""

    text: str


class Watch(Protocol):
    """Somebody who looks at the weights now and then; on every rank, as what one asks needs all."""

    def due(self, step: int) -> bool:
        """Whether to look after so many updates."""

    def run(self, engine: Engine, step: int, beat: Callable[[], None]) -> Mapping[str, torch.Tensor]:
        """Look: pairs (see ``curves``) by the same names on every rank. ``beat`` says that it is not stuck."""


class Trainer:
    """One rank's part in a training."""

    def __init__(
        self,
        rank: Rank,
        engine: Engine,
        stream: Stream,
        checkpoints: Checkpoints,
        config: TrainConfig,
        watches: Sequence[Watch] = (),
    ) -> None:
        self._rank, self._engine, self._stream = rank, engine, stream
        self._checkpoints, self._config = checkpoints, config
        self._spikes, self._nonfinite = SpikeDetector(config.stability), NonFinite(config.stability)
        self._last: dict[str, float] = {}  # every scalar as it was last logged
        self._passes: list[Pass] = []  # of the step
        self._watches = watches
        self._speed = Speedometer(rank.world, engine.device)

    def run(self, first_step: int) -> int:
        """Train from ``first_step`` to the end; 0, or 75 where a signal asked to stop and a checkpoint is written.

        Raises:
            FloatingPointError: a loss or gradient is not finite, and the rule is to stop, or it is so too often.
            LeaveError: a checkpoint could not be written.
        """
        config = self._config
        self._rank.beat("train", first_step)
        for step in range(first_step, config.num_steps):
            scalars, stopping = self._step(step)
            done = step + 1
            self._rank.beat("train", done)
            self._examine(done, scalars)
            self._committed(self._checkpoints.done())
            last = done == config.num_steps
            if stopping:
                self._rank.stop.set()  # the request may have reached another rank
            if last or stopping or done % config.checkpoints.every_steps == 0:
                self._save(done, wait=last or stopping)
            if stopping and not last:
                self._note_stop(done)
                return EXIT_REQUEUE
        return 0

    def attempt(self, num_steps: int) -> list[dict[str, float]]:
        """The scalars of the first steps, which are made but neither examined nor reported nor saved."""
        return [self._step(step)[0] for step in range(num_steps)]

    def _examine(self, done: int, scalars: dict[str, float]) -> None:
        """Report a step; where its update was not made, or its loss is far off, say so and keep its samples."""
        made = self._engine.updated and math.isfinite(scalars["loss"])
        if made:
            self._nonfinite.fine()
            self._engine.average(done)
            if score := self._spikes.score(scalars["loss"]):
                self._report(spike(done, score, scalars, self._all_passes()))
        else:
            incident = nonfinite(done, scalars, self._all_passes())
            self._report(incident)
            if self._nonfinite.stops():
                raise FloatingPointError(
                    f"{incident.text}; lower the learning rate, or leave these samples out"
                )
        scalars |= self._look(done)
        if self._config.stability.on_nonfinite == "skip":
            scalars |= {"skipped": float(not made)}
        self._last |= scalars
        self._report(StepDone(done, {name: v for name, v in scalars.items() if math.isfinite(v)}))

    def _look(self, done: int) -> dict[str, float]:
        """What is found by those whose turn it is; they see the averaged weights."""
        found: dict[str, float] = {}
        for watch in self._watches:
            if watch.due(done):
                with self._engine.averaged():
                    pairs = watch.run(self._engine, done, lambda: self._rank.beat("train", done))
                found |= self._engine.mean([pairs], False)[0]
        return found

    def _report(self, event: Any) -> None:
        if self._rank.index == 0:
            self._rank.report(event)

    def _all_passes(self) -> list[Pass]:
        """Of all ranks in this step; called by every rank."""
        return [found for passes in gather(self._passes) for found in passes]

    def _note_stop(self, step: int) -> None:
        asked_s = self._rank.stop.asked_s
        if asked_s is not None:
            spent_s = time.monotonic() - asked_s
            self._report(
                Note(f"stopped at step {step}, checkpoint committed {spent_s:.1f} s after the request")
            )

    def _step(self, step: int) -> tuple[dict[str, float], bool]:
        """One update of the weights, over all accumulated passes."""
        started, waited_s = time.perf_counter(), 0.0
        seed_everything(self._config.seed, step, self._rank.index)
        scale = learning_rate_scale(step, self._config.num_steps, self._config.optimizer)
        parts: list[dict[str, torch.Tensor]] = []
        batches: list[Batch] = []
        for _ in range(self._config.engine.accumulation):
            batch, wait_s = self._stream.next()
            scalars = self._pass(batch, step)
            self._engine.step(scale)
            parts.append(scalars)
            batches.append(batch)
            waited_s += wait_s
        means, stopping = self._engine.mean(parts, self._rank.stop.is_set())
        self._passes = [
            Pass(self._rank.index, batch.keys, bool(part["loss"].isfinite()))
            for batch, part in zip(batches, parts, strict=True)
        ]
        spent_s = time.perf_counter() - started
        own = {
            "step_time_s": spent_s,
            "data_wait_share": waited_s / spent_s,
            "learning_rate_scale": scale,
            "gradient_norm": self._engine.gradient_norm(),
        }
        return means | own | self._throughput(batches, means.get("visual_tokens", 0.0), spent_s), stopping

    def _throughput(
        self, batches: Sequence[Batch], tokens_per_sample: float, spent_s: float
    ) -> dict[str, float]:
        num_samples = sum(len(batch.keys) for batch in batches)
        one = batches[0]
        self._speed.count(
            lambda: self._engine.evaluate(one, 0.5), self._engine.counted, tokens_per_sample * len(one.keys)
        )
        return self._speed.figures(num_samples, tokens_per_sample * num_samples, spent_s)

    def _pass(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        done = torch.full((len(batch.keys),), step / self._config.num_steps, dtype=torch.float64)
        scalars = self._engine.forward(replace(batch, progress=done).to(self._engine.device))
        self._engine.backward(scalars["loss"])
        return {name: value.detach() for name, value in scalars.items()}

    def _save(self, step: int, wait: bool) -> None:
        self._rank.beat("checkpoint", step)
        progress = Progress(step, self._stream.consumed(step), self._score(step))
        self._committed(self._checkpoints.write(progress, self._engine.copy, self._rank.allowed))
        if wait:
            self._committed(self._checkpoints.wait())
        self._rank.beat("train", step)

    def _score(self, step: int) -> float | None:
        """By which the best checkpoints are kept."""
        name = self._config.checkpoints.best_of
        score = self._last.get(name)
        if name and score is None:
            known = ", ".join(sorted(self._last))
            self._report(
                Note(f"step {step}: checkpoints.best_of={name!r} was not logged yet; there are {known}")
            )
        return score if score is not None and math.isfinite(score) else None

    def _committed(self, folders: Sequence[Path]) -> None:
        for folder in folders:
            self._report(Saved(folder))


def seed_everything(seed: int, step: int, rank: int) -> None:
    """Seed Python's, numpy's and torch's global generators for one step of one rank."""
    value = int.from_bytes(hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()[:4], "big")
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)
