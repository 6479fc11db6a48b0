"""The training loop: it knows steps, named scalars and checkpoints, and no model family, loss or tracker.

Nothing random outlives a step: every step seeds the generators from (seed, step, rank), and an objective draws
from (seed, position). So the step number and DeepSpeed's own state are all that an exact resume needs.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.batch import Batch
from pipeline.checkpoints import Checkpoints, Progress
from pipeline.config import TrainConfig
from pipeline.data import Stream
from pipeline.engine import Engine, learning_rate_scale
from pipeline.rank import EXIT_REQUEUE, Rank


@dataclass(frozen=True)
class StepDone:
    """Reported by the first rank. step: updates done; scalars: the objective's means over all ranks and passes,
    and step_time_s, data_wait_share (of this rank's step time, in [0,1]), learning_rate_scale, gradient_norm."""

    step: int
    scalars: Mapping[str, float]


@dataclass(frozen=True)
class Saved:
    """Reported by the first rank after a checkpoint is committed."""

    step: int
    folder: Path


@dataclass(frozen=True)
class Note:
    """Something a person should read, such as a damaged checkpoint that was passed over."""

    text: str


class Trainer:
    """One rank's part in a training."""

    def __init__(
        self, rank: Rank, engine: Engine, stream: Stream, checkpoints: Checkpoints, config: TrainConfig
    ) -> None:
        self._rank, self._engine, self._stream = rank, engine, stream
        self._checkpoints, self._config = checkpoints, config

    def run(self, first_step: int) -> int:
        """Train from ``first_step`` to the end; 0, or 75 where a signal asked to stop and a checkpoint is written.

        Raises:
            FloatingPointError: the loss is not finite; no checkpoint is written.
        """
        config = self._config
        self._rank.beat("train", first_step)
        for step in range(first_step, config.num_steps):
            scalars, stopping = self._step(step)
            done = step + 1
            self._rank.beat("train", done)
            if not math.isfinite(scalars["loss"]):
                raise FloatingPointError(f"step {done}: loss is {scalars['loss']}; lower the learning rate")
            if self._rank.index == 0:
                self._rank.report(StepDone(done, scalars))
            last = done == config.num_steps
            if stopping:
                self._rank.stop.set()  # the request may have reached another rank
            if last or stopping or done % config.checkpoints.every_steps == 0:
                self._save(done)
            if stopping and not last:
                self._note_stop(done)
                return EXIT_REQUEUE
        return 0

    def _note_stop(self, step: int) -> None:
        asked_s = self._rank.stop.asked_s
        if self._rank.index == 0 and asked_s is not None:
            spent_s = time.monotonic() - asked_s
            said = f"stopped at step {step}, checkpoint committed {spent_s:.1f} s after the request"
            self._rank.report(Note(said))

    def _step(self, step: int) -> tuple[dict[str, float], bool]:
        """One update of the weights, over all accumulated passes."""
        started, waited_s = time.perf_counter(), 0.0
        seed_everything(self._config.seed, step, self._rank.index)
        scale = learning_rate_scale(step, self._config.num_steps, self._config.optimizer)
        parts: list[dict[str, torch.Tensor]] = []
        for _ in range(self._config.engine.accumulation):
            batch, wait_s = self._stream.next()
            scalars = self._pass(batch)
            self._engine.step(scale)
            parts.append(scalars)
            waited_s += wait_s
        means, stopping = self._engine.mean(parts, self._rank.stop.is_set())
        spent_s = time.perf_counter() - started
        own = {
            "step_time_s": spent_s,
            "data_wait_share": waited_s / spent_s,
            "learning_rate_scale": scale,
            "gradient_norm": self._engine.gradient_norm(),
        }
        return means | own, stopping

    def _pass(self, batch: Batch) -> dict[str, torch.Tensor]:
        scalars = self._engine.forward(batch.to(self._engine.device))
        self._engine.backward(scalars["loss"])
        return {name: value.detach() for name, value in scalars.items()}

    def _save(self, step: int) -> None:
        self._rank.beat("checkpoint", step)
        progress = Progress(step, consumed=self._stream.consumed(step))
        folder = self._checkpoints.write(
            progress, self._engine.save, lambda: self._rank.beat("checkpoint", step)
        )
        if self._rank.index == 0:
            self._rank.report(Saved(step, folder))


def seed_everything(seed: int, step: int, rank: int) -> None:
    """Seed Python's, numpy's and torch's global generators for one step of one rank."""
    value = int.from_bytes(hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()[:4], "big")
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)
