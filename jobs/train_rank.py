"""One rank of a training: from joining the others to leaving them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.records import InputError
from jobs.train_observer import recorded
from jobs.train_samples import open_samples
from pipeline.config import TrainConfig

if TYPE_CHECKING:
    import torch

    from pipeline.batch import Batch
    from pipeline.data.features import Recogniser
    from pipeline.data.order import Share
    from pipeline.data.samples import Samples
    from pipeline.objective.objective import DiffusionObjective
    from pipeline.ranks.joining import Meeting, Word
    from pipeline.ranks.rank import Rank
    from pipeline.training.checkpoints import Checkpoint
    from pipeline.training.engine import Engine
    from pipeline.training.trainer import Watch


def train_rank(rank: Rank, config: TrainConfig, recogniser: Recogniser, meeting: Meeting) -> int:
    """One rank from joining the others to leaving them; 0, or 75 where it was asked to stop."""
    from pipeline.data.stream import Stream
    from pipeline.training import engine
    from pipeline.training.checkpoints import Checkpoints, Peers
    from pipeline.training.trainer import Note, Trainer

    word = meeting.agree(rank.beat)
    if word.code is not None:
        return left(word)
    rank.beat("starting", 0)
    engine.join(rank, meeting.store(), config.engine)
    try:

        def say(text: str) -> None:
            if rank.index == 0:
                rank.report(Note(text))

        behind = engine.gathering(config.engine) if config.checkpoints.background else None
        peers = Peers(rank.index, rank.world, engine.gather, behind)
        with Checkpoints(Path(config.run) / "checkpoints", config.checkpoints, peers) as checkpoints:
            found = checkpoints.newest(lambda text: rank.report(Note(text)))
            samples, grid = open_samples(config, recogniser, say)
            wrapped, share, objective = wrapped_engine(rank, config, found, shown(config, samples))
            first_step = found.step if found is not None else 0
            stream = Stream(samples, share, range(first_step, config.num_steps), config.data, grid)
            watching = watches(rank, config, recogniser, objective, wrapped.device)
            trainer = Trainer(recorded(rank, config), wrapped, stream, checkpoints, config, watching)
            return trainer.run(first_step)
    finally:
        engine.leave()


def shown(config: TrainConfig, samples: Samples) -> tuple[str, ...]:
    """The characters with an error curve of their own, the same on every rank."""
    from pipeline.objective.curves import most_frequent

    casts = [samples.sample_row(index).cast for index in range(len(samples))]
    return most_frequent(casts, config.tracking.num_characters)


def watches(
    rank: Rank,
    config: TrainConfig,
    recogniser: Recogniser,
    objective: DiffusionObjective,
    device: torch.device,
) -> list[Watch]:
    """Who looks at the weights now and then: validation, and whoever draws sample videos."""
    from jobs.train_pictures import Drawing
    from pipeline.data.frozen import encoded
    from pipeline.data.samples import Samples
    from pipeline.data.stream import collate
    from pipeline.training.validation import FIRST_POSITION, Validation

    found: list[Watch] = []
    if config.validation.every_steps:
        apart = Samples(config.data, config.seed, recogniser, validation=True)
        num = min(config.validation.num_samples, len(apart))

        def load(k: int) -> Batch:
            batch = collate([apart.load(k * len(apart) // num, FIRST_POSITION + k)])
            return encoded(batch, objective.model.family, device)

        found.append(Validation(config.validation, load, num, (rank.index, rank.world)))
    if config.tracking.sample_every:
        found.append(Drawing(config, objective.model, Samples(config.data, config.seed, recogniser), rank))
    return found


def wrapped_engine(
    rank: Rank, config: TrainConfig, found: Checkpoint | None, shown: Sequence[str] = ()
) -> tuple[Engine, Share, DiffusionObjective]:
    """The engine of a rank, as a checkpoint left it where there is one; what the rank takes of each batch; and the
    objective inside, with error curves of the characters ``shown``."""
    from jobs.train import build
    from pipeline import adapters
    from pipeline.data.order import Share
    from pipeline.training import engine
    from pipeline.training.optimizer import adamw

    universal = found is not None and found.world != rank.world and config.engine.zero_stage > 0
    if found is not None and universal:
        engine.make_universal(found.folder)
    share = Share(config.batch_size, rank.index, rank.world, config.engine.accumulation)
    objective = build(config, shown, config.engine)
    model = objective.model
    if config.engine.activation_checkpointing:
        model.checkpoint_activations()
    groups = adapters.trainable_groups(model.transformer, model.identity, config.model.adapter)
    optimizer = adamw(groups, config.optimizer)
    wrapped = engine.Engine(objective, optimizer, config.engine, share.micro, universal, config.ema)
    if found is not None:
        wrapped.load(found.folder)
    return wrapped, share, objective


def left(word: Word) -> int:
    """The exit code with which all ranks leave before training; where it is no good end the reason is raised."""
    from pipeline.ranks.rank import EXIT_INPUT, LeaveError

    if word.code == EXIT_INPUT:
        raise InputError(word.reason)
    if word.code == 1:
        raise LeaveError(word.reason)
    assert word.code is not None
    return word.code
