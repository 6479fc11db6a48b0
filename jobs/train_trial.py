"""``castbank train --dry-run``: a training up to its first updates, in a folder that is thrown away."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from data_prep.records import InputError
from jobs.train_checks import check_cast
from jobs.train_samples import open_samples
from pipeline.config import TrainConfig

if TYPE_CHECKING:
    from jobs.train_place import Surroundings
    from pipeline.data.features import Recogniser
    from pipeline.objective.objective import DiffusionObjective
    from pipeline.ranks.rank import Rank

NUM_STEPS = 2  # the first one also allocates and warms up; the second one is timed
STATE_BYTES = 12  # of a trained parameter in a checkpoint: fp32 weight and two moments of AdamW


@dataclass(frozen=True)
class Trial:
    """Measured by the first rank. trained, frozen: parameters; tokens: visual ones of a sample; memory_mb: peak of
    the rank that has most; first_s, step_s: seconds of the first update and of the last; loss: of the first one."""

    trained: int
    frozen: int
    tokens: int
    memory_mb: float
    first_s: float
    step_s: float
    loss: float


def run_dry(config: TrainConfig, recogniser: Recogniser, around: Surroundings) -> int:
    """Try a training on this machine and print what it would be; nothing is written into the run's folder.

    Raises:
        InputError: as a training, or where a launcher has started this process as one of several.
    """
    if around.launched:
        raise InputError("--dry-run starts its own ranks; run it without a launcher (torchrun, srun)")
    from jobs.train import PRELOAD, make_initial
    from pipeline.data.order import Share
    from pipeline.data.samples import Samples
    from pipeline.ranks.launch import launch

    num_ranks = config.engine.num_processes
    Share(config.batch_size, 0, num_ranks, config.engine.accumulation)  # says so now if it does not divide
    samples = Samples(config.data, config.seed, recogniser)
    check_cast(config, samples)
    heard: list[Any] = []
    with tempfile.TemporaryDirectory(prefix="castbank-dry-run-") as folder:
        there = replace(config, run=folder)
        make_initial(there, samples, lambda phase, step: None)
        args = (there, recogniser, around.training(there))
        launch(num_ranks, try_rank, args, Path(folder) / "logs", heard.append, PRELOAD)
    (trial,) = (message for message in heard if isinstance(message, Trial))
    sys.stdout.write("\n".join(lines(config, trial, len(samples))) + "\n")
    return 0


def try_rank(rank: Rank, config: TrainConfig, recogniser: Recogniser, training: str) -> int:
    """One rank: joins, builds, loads its first batches and updates with them."""
    from jobs.train_rank import wrapped_engine
    from pipeline.data.stream import Stream
    from pipeline.ranks.joining import meet
    from pipeline.training import engine
    from pipeline.training.checkpoints import Checkpoints, Peers
    from pipeline.training.trainer import Trainer

    engine.join(rank, meet(rank, config.engine.join_timeout_s, training), config.engine)
    try:
        wrapped, share, objective = wrapped_engine(rank, config, None)
        samples, grid = open_samples(config, recogniser, lambda text: None)
        stream = Stream(samples, share, range(NUM_STEPS), config.data, grid)
        peers = Peers(rank.index, rank.world, engine.gather)
        with Checkpoints(Path(config.run), config.checkpoints, peers) as checkpoints:
            steps = Trainer(rank, wrapped, stream, checkpoints, config).attempt(NUM_STEPS)
        memory_mb = max(engine.gather(steps[-1]["memory_mb"]))
        if rank.index == 0:
            trained, frozen = _parameters(objective)
            times_s = [scalars["step_time_s"] for scalars in steps]
            tokens, loss = round(steps[0]["visual_tokens"]), steps[0]["loss"]
            rank.report(Trial(trained, frozen, tokens, memory_mb, times_s[0], times_s[-1], loss))
        return 0
    finally:
        engine.leave()


def lines(config: TrainConfig, trial: Trial, num_samples: int) -> list[str]:
    """What is printed."""
    ranks, run = config.engine.num_processes, Path(config.run)
    kept = config.checkpoints.keep_last + config.checkpoints.keep_best
    bytes_each = trial.trained * (STATE_BYTES + (4 if config.ema.decay else 0))
    hours = trial.step_s * config.num_steps / 3600
    epochs = config.num_steps * config.batch_size / num_samples
    end = "no export (data.overfit)" if config.data.overfit else f"{run / 'export'}"
    return [
        f"trained {trial.trained:,} parameters, frozen {trial.frozen:,} ({config.model.adapter.kind})",
        f"{num_samples} samples, {epochs:.1f} times each in {config.num_steps} steps of {config.batch_size}; "
        f"{trial.tokens} visual tokens a sample, {trial.tokens * config.batch_size:,} a step",
        f"{ranks} ranks, ZeRO {config.engine.zero_stage}, {config.engine.dtype}: peak memory of the rank that has "
        f"most {trial.memory_mb:,.0f} MB{' of its GPU' if torch.cuda.is_available() else ''}",
        f"loss {trial.loss:.4f}; first step {trial.first_s:.2f} s, then {trial.step_s:.2f} s a step: "
        f"about {hours:.2f} h in all",
        f"would be written: {run / 'checkpoints'}, at most {kept} + 1 of {bytes_each / 1e6:,.1f} MB; {end}",
        f"nothing was written to {run}",
    ]


def _parameters(objective: DiffusionObjective) -> tuple[int, int]:
    """Trained and frozen ones, whole also where ZeRO has cut them up."""
    counts = {True: 0, False: 0}
    for parameter in objective.parameters():
        counts[parameter.requires_grad] += int(getattr(parameter, "ds_numel", parameter.numel()))
    return counts[True], counts[False]
