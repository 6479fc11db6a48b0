"""What follows a training: the export, and videos of casts it was trained on beside the clips they come from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from data_prep.records import InputError
from jobs.train_pictures import Drawn, chosen, names_of
from pipeline.config import TrainConfig
from pipeline.data.stream import collate
from pipeline.exports import export
from pipeline.identity.bank import IdentityBank
from pipeline.identity.enrol import enrol, gather_references
from pipeline.model import Model
from pipeline.objective import objective
from pipeline.training import engine
from pipeline.training.checkpoints import newest

if TYPE_CHECKING:
    from pipeline.data.features import Recogniser
    from pipeline.data.samples import Samples
    from pipeline.objective.objective import DiffusionObjective


def finish(
    config: TrainConfig,
    trained: DiffusionObjective,
    samples: Samples,
    recogniser: Recogniser,
    allowed: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Export what the newest checkpoint holds, checked on a real batch, with a bank of all characters seen.

    Args:
        config: of the run.
        trained: the objective as the ranks built it; it is given the trained values here.
        samples: what was trained on.
        recogniser: turns the references into what the bank keeps.
        allowed: asked before anything is written; does not come back where it must not be.

    Returns:
        Sample videos and contact sheets, in the run's folder.

    Raises:
        InputError: the last step's checkpoint is damaged.
    """
    folder = Path(config.run)
    damages: list[str] = []
    reached = newest(folder / "checkpoints", damages.append)
    if (
        reached is None or reached.step != config.num_steps
    ):  # an older one must not pass for the trained model
        raise InputError(
            f"{'; '.join(damages) or 'no checkpoint'}: run the same command again, it goes on there"
        )
    export.load_trained(trained, engine.trained_parameters(reached.folder, config.engine.zero_stage))
    model = trained.model.eval()
    earlier = IdentityBank.load(Path(config.base) / "bank") if config.base else None
    found, lock = gather_references(samples.raw()), config.model.adapter.lock
    bank = enrol(model.identity, found, recogniser, config.names, earlier, lock)
    batch = collate([samples.load(0, 0)])

    def ask(asked: Model) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            scalars: dict[str, torch.Tensor] = objective.build(
                config.model, asked.eval(), config.seed, faces=trained.faces[0], locked=trained.locked
            )(batch)
        return scalars

    allowed()
    paths = make_samples(config, model, bank, samples)
    allowed()
    seen = seen_in(samples)
    export.export(model, bank, ask, folder / "export", seen)  # last: a run with an export is a finished one
    return paths


def seen_in(samples: Samples) -> export.Seen:
    """The size that most samples were trained at, and how fast a video of their frames has to be shown."""
    most = max(samples.buckets, key=lambda bucket: len(samples.buckets[bucket]))
    index = samples.buckets[most][0]
    note = samples.read(index).note
    num_frames, height_px, width_px = samples.config.num_frames, note.height_px, note.width_px
    if most is not None:
        num_frames, height_px, width_px = most.num_frames, most.height_px, most.width_px
    return export.Seen(num_frames, height_px, width_px, note.fps / samples.config.frame_stride)


def make_samples(config: TrainConfig, model: Model, bank: IdentityBank, samples: Samples) -> list[Path]:
    """Videos of some samples' captions with the bank's characters, beside the real clips."""
    paths: list[Path] = []
    for index in chosen(config, samples):
        item = samples.load(index, index)
        names = names_of(config, item)
        pictures = None if model.identity.low_frequency is None else bank.pictures(names)
        drawing = Drawn(item, bank.cast(names), names, pictures)
        paths += drawing.write(drawing.video(model), Path(config.run) / "samples")
    return paths
