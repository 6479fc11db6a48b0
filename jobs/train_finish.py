"""What follows a training: the export, and videos of casts it was trained on beside the clips they come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from data_prep.atomic import write_atomic
from data_prep.decode import decode_mp4
from data_prep.encode import encode_mp4
from data_prep.records import U8, InputError
from pipeline import engine, export, objective
from pipeline.checkpoints import newest
from pipeline.config import GenerateConfig, TrainConfig
from pipeline.data import collate
from pipeline.generate import Scene, contact_sheet, generate
from pipeline.identity.bank import IdentityBank
from pipeline.identity.enrol import enrol, gather_references
from pipeline.model import Model

if TYPE_CHECKING:
    from pipeline.data import Samples
    from pipeline.features import Recogniser
    from pipeline.objective import DiffusionObjective

NUM_STEPS = 20  # of a sample video


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
    found = newest(folder / "checkpoints", damages.append)
    if found is None or found.step != config.num_steps:  # an older one must not pass for the trained model
        raise InputError(
            f"{'; '.join(damages) or 'no checkpoint'}: run the same command again, it goes on there"
        )
    export.load_trained(trained, engine.trained_parameters(found.folder, config.engine.zero_stage))
    model = trained.model.eval()
    earlier = IdentityBank.load(Path(config.base) / "bank") if config.base else None
    bank = enrol(model.identity, gather_references(samples.raw()), recogniser, config.names, earlier)
    batch = collate([samples.load(0, 0)])

    def ask(asked: Model) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            scalars: dict[str, torch.Tensor] = objective.build(config.model, asked.eval(), config.seed)(batch)
        return scalars

    allowed()
    paths = make_samples(config, model, bank, samples)
    allowed()
    export.export(model, bank, ask, folder / "export")  # last: a run with an export is a finished one
    return paths


def make_samples(config: TrainConfig, model: Model, bank: IdentityBank, samples: Samples) -> list[Path]:
    """Generate some samples' captions with their casts; the contact sheets show the real clips above, and a note
    beside each says who should be seen, as that of castbank generate does."""
    folder = Path(config.run) / "samples"
    folder.mkdir(exist_ok=True)
    paths: list[Path] = []
    count = min(config.tracking.num_samples, len(samples))
    for index in (k * len(samples) // count for k in range(count)):
        item = samples.load(index, index)
        num_frames, height_px, width_px, _ = item.video.shape
        names = [config.names.get(character, character) for character in item.cast]
        settings = GenerateConfig(
            steps=NUM_STEPS, num_frames=num_frames, height_px=height_px, width_px=width_px
        )
        anchor = item.video[0] if model.family.outline.pictured else None
        scene = Scene(item.caption, bank.cast(names), anchor=anchor)
        video = encode_mp4(generate(model, scene, settings), settings.fps)
        real, made = contact_sheet(item.video, num_frames), contact_sheet(decode_mp4(video), num_frames)
        paths += [folder / f"{item.key}.mp4", folder / f"{item.key}.png"]
        note = {"prompt": item.caption, "cast": names, "config": asdict(settings)}
        note["video_sha256"] = hashlib.sha256(video).hexdigest()
        write_atomic(folder / f"{item.key}.json", json.dumps(note, indent=2, ensure_ascii=False).encode())
        paths[-2].write_bytes(video)
        paths[-1].write_bytes(to_png(np.concatenate([real, made])))
    return paths


def to_png(image: U8) -> bytes:
    """u8[H,W,3] RGB as a PNG file."""
    import cv2

    done, data = cv2.imencode(".png", image[..., ::-1])
    assert done
    return bytes(data)
