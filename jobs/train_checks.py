"""What no training can have, said before it starts: values, bases, casts and names."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.records import InputError
from jobs import config as configs
from pipeline.config import ModelConfig, TrainConfig

if TYPE_CHECKING:
    from pipeline.data import Samples

MANY = math.inf
ALLOWED = {  # key: least and greatest value
    "num_steps": (1, MANY),
    "batch_size": (1, MANY),
    "data.num_frames": (1, MANY),
    "data.frame_stride": (1, MANY),
    "data.num_workers": (0, MANY),
    "data.prefetch": (1, MANY),
    "engine.num_processes": (1, MANY),
    "engine.accumulation": (1, MANY),
    "engine.gradient_clipping": (0, MANY),
    "checkpoints.every_steps": (1, MANY),
    "checkpoints.keep_last": (1, MANY),
    "tracking.num_samples": (0, MANY),
    "tracking.num_characters": (0, MANY),
    "model.adapter.rank": (1, MANY),
    "model.adapter.learning_rate": (0, MANY),
    "model.adapter.identity_learning_rate": (0, MANY),
    "model.losses.diffusion": (0, MANY),
    "model.losses.mask": (0, MANY),
    "model.losses.routing": (0, MANY),
    "model.losses.mask_probability": (0, 1),
    "model.noise.text_drop": (0, 1),
    "model.noise.cast_drop": (0, 1),
    "model.noise.cross_face": (0, 1),
    "model.noise.anchor": (0, 1),
}


def check(config: TrainConfig) -> None:
    """Raise InputError for values that no training can have."""
    from pipeline.families import family_type

    configs.check_ranges(config, ALLOWED)
    outline = family_type(config.model.family.name).look(config.model.family)
    if config.model.noise.anchor > 0 and not outline.anchors:
        raise InputError(
            f"model.noise.anchor={config.model.noise.anchor}: this model of family {config.model.family.name!r} "
            "has one noise level for all frames, or is given a picture otherwise, and takes no clean first frame; "
            "set it to 0, or take a text-to-video model of the wan family"
        )
    if config.base:
        check_base(config)


def check_base(config: TrainConfig) -> None:
    """Raise InputError for a base that is no export, or one of another family or identity network."""
    found = Path(config.base) / "model.yaml"
    if not found.is_file():
        raise InputError(f"base {config.base!r}: no {found.name} there; give the export folder of a run")
    before, now = (configs.flat(model) for model in (configs.load(ModelConfig, found, []), config.model))
    same = [key for key in now if key.startswith(("family.", "identity."))]
    changed = [
        f"model.{key} (base {before[key]}, here {now[key]})" for key in same if before[key] != now[key]
    ]
    if changed:
        raise InputError(
            f"base {config.base!r} is another model: {'; '.join(changed)}; take the base's values"
        )


def check_cast(config: TrainConfig, samples: Samples) -> None:
    """Raise InputError for more characters at once than the model has slots, and for names that cannot be given."""
    casts = [samples.shards.rows[row].cast for row in samples.rows]
    most, slots = max(map(len, casts)), config.model.identity.max_cast
    if most > slots:
        raise InputError(
            f"model.identity.max_cast={slots}: a sample shows {most} characters; set it to {most}, or prepare with "
            f"windows.max_cast={slots}"
        )
    shown = {character for cast in casts for character in cast}
    unknown = sorted(config.names.keys() - shown)
    if unknown:
        raise InputError(
            f"names: {', '.join(unknown)} not in the samples to train on; they show {', '.join(sorted(shown))}"
        )
    named = Counter(config.names.get(character, character) for character in shown)
    twice = sorted(name for name, count in named.items() if count > 1)
    if twice:
        raise InputError(
            f"names: {', '.join(twice)} would be several characters in the bank; names must differ"
        )
