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
    from pipeline.data.samples import Samples

MANY = math.inf
ALLOWED = {  # key: least and greatest value
    "num_steps": (1, MANY),
    "batch_size": (1, MANY),
    "data.num_frames": (1, MANY),
    "data.frame_stride": (1, MANY),
    "data.windows_per_sample": (1, MANY),
    "data.flip": (0, 1),
    "data.max_upscale": (1, MANY),
    "data.overfit": (0, MANY),
    "data.num_workers": (0, MANY),
    "data.prefetch": (1, MANY),
    "engine.num_processes": (1, MANY),
    "engine.accumulation": (1, MANY),
    "engine.gradient_clipping": (0, MANY),
    "checkpoints.every_steps": (1, MANY),
    "checkpoints.keep_last": (1, MANY),
    "checkpoints.keep_best": (0, MANY),
    "ema.decay": (0, 0.9999999),
    "ema.every": (1, MANY),
    "stability.max_skipped": (0, MANY),
    "stability.spike_score": (0, MANY),
    "stability.spike_window": (5, MANY),
    "tracking.num_samples": (0, MANY),
    "tracking.num_characters": (0, MANY),
    "tracking.sample_every": (0, MANY),
    "validation.every_steps": (0, MANY),
    "validation.num_samples": (1, MANY),
    "data.held_out": (0, 0.9),
    "model.identity.every": (1, MANY),
    "model.adapter.rank": (1, MANY),
    "model.adapter.learning_rate": (0, MANY),
    "model.adapter.identity_learning_rate": (0, MANY),
    "model.losses.diffusion": (0, MANY),
    "model.losses.mask": (0, MANY),
    "model.losses.routing": (0, MANY),
    "model.losses.mask_probability": (0, 1),
    "model.schedule.coarse": (0, 1),
    "model.schedule.fade_in": (0, 1),
    "model.losses.identity": (0, MANY),
    "model.losses.identity_below": (0, 1),
    "model.losses.identity_drift": (0, MANY),
    "model.losses.identity_frames": (1, MANY),
    "model.losses.identity_min_face_px": (1, MANY),
    "model.noise.text_drop": (0, 1),
    "model.noise.cast_drop": (0, 1),
    "model.noise.cross_face": (0, 1),
    "model.noise.anchor": (0, 1),
    "model.family.wan.shift": (0.01, MANY),
    "model.family.wan.text_tokens": (1, MANY),
}


def check(config: TrainConfig) -> None:
    """Raise InputError for values that no training can have."""
    from pipeline import adapters
    from pipeline.families import family_type
    from pipeline.quantised import check_installed
    from pipeline.training import nvme, zero_config

    configs.check_ranges(config, ALLOWED)
    check_validation(config)
    check_schedule(config.model)
    check_identity_loss(config)
    zero_config.check(config.engine)
    nvme.check(config.engine)
    adapters.check(config.model.adapter)
    check_base_precision(config)
    check_installed(config.engine.base_precision)
    if config.checkpoints.keep_best and not config.checkpoints.best_of:
        raise InputError(
            f"checkpoints.keep_best={config.checkpoints.keep_best}: best at what? Give checkpoints.best_of the "
            "name of a scalar that is logged, such as loss, or set keep_best to 0"
        )
    check_data(config)
    outline = family_type(config.model.family.name).look(config.model.family)
    if config.model.noise.anchor > 0 and not outline.anchors:
        raise InputError(
            f"model.noise.anchor={config.model.noise.anchor}: this model of family {config.model.family.name!r} "
            "has one noise level for all frames, or is given a picture otherwise, and takes no clean first frame; "
            "set it to 0, or take a text-to-video model of the wan family"
        )
    check_given(config)
    if config.base:
        check_base(config)
    check_lock(config)


def check_given(config: TrainConfig) -> None:
    """Raise InputError for frames to be given clean that are none, or that no sample is given."""
    from pipeline.objective.noise import GIVEN

    given, anchor = config.model.noise.given, config.model.noise.anchor
    unknown = [kind for kind in given if kind not in GIVEN]
    if unknown or not given or (tuple(given) != ("first",) and anchor == 0):
        raise InputError(
            f"model.noise.given=[{','.join(given)}] with model.noise.anchor={anchor}: it takes some of "
            f"{', '.join(GIVEN)}, and others than first want a share of samples, such as model.noise.anchor=0.5"
        )


def check_lock(config: TrainConfig) -> None:
    """Raise InputError where a character is to be locked that the base's bank does not hold."""
    if config.model.adapter.lock:
        from pipeline.identity.bank import IdentityBank
        from pipeline.identity.lock import locked_names

        bank = IdentityBank.load(Path(config.base) / "bank") if config.base else None
        locked_names(bank, config.model.adapter.lock)


def check_base_precision(config: TrainConfig) -> None:
    """Raise InputError for a quantised base that is trained itself, or cut up by stage 3."""
    precision, kind, stage = (
        config.engine.base_precision,
        config.model.adapter.kind,
        config.engine.zero_stage,
    )
    if precision == "dtype":
        return
    if kind != "lora":
        raise InputError(
            f"engine.base_precision={precision} with model.adapter.kind={kind}: only the frozen base under a LoRA "
            "is quantised; set kind to lora, or base_precision to dtype"
        )
    if stage == 3:
        raise InputError(
            f"engine.base_precision={precision} with engine.zero_stage=3: stage 3 cuts weights up among the ranks, "
            "and quantised ones cannot be; set zero_stage to 2 (all that it would share beside is the LoRA's), or "
            "base_precision to dtype"
        )


def check_data(config: TrainConfig) -> None:
    """Raise InputError for values that no samples can be taken with."""
    from pipeline.data.cuts import Bucket

    configs.check_ranges(config, {key: limits for key, limits in ALLOWED.items() if key.startswith("data.")})
    named = [Bucket.parse(text) for text in config.data.buckets]
    if len(set(named)) != len(named):
        raise InputError(f"data.buckets: {', '.join(map(str, named))}: one comes twice; give each once")


def check_schedule(model: ModelConfig) -> None:
    """Raise InputError for phases that no training can have."""
    from pipeline.objective.losses import LOSSES

    given, known = model.schedule, [*(name for name in LOSSES if name != "diffusion"), "identity"]
    if given.coarse + given.fade_in > 1 + 1e-9:  # as 0.7 + 0.3 may be
        raise InputError(
            f"model.schedule.coarse={given.coarse:g} and fade_in={given.fade_in:g} are more than the whole "
            "training together; they are shares of its steps: lower one"
        )
    if given.coarse and not model.identity.low_frequency:
        raise InputError(
            f"model.schedule.coarse={given.coarse:g}: identity attention waits, and nothing else tells of the "
            "cast; set model.identity.low_frequency=true, or coarse to 0"
        )
    if unknown := [name for name in given.losses if name not in known]:
        raise InputError(
            f"model.schedule.losses: {', '.join(unknown)} cannot come in later; give some of {', '.join(known)}"
        )


def check_identity_loss(config: TrainConfig) -> None:
    """Raise InputError where the identity loss would have no pixels to look at."""
    if config.model.losses.identity > 0 and config.data.cache == "require":
        raise InputError(
            f"model.losses.identity={config.model.losses.identity} looks at frames, which data.cache=require does "
            "not load; set data.cache to off, or the weight to 0"
        )


def check_validation(config: TrainConfig) -> None:
    """Raise InputError for a validation without samples, or at levels that are none."""
    given = config.validation
    if given.every_steps and not config.data.held_out:
        raise InputError(
            f"validation.every_steps={given.every_steps}: on what? Give data.held_out the share of samples to keep "
            "from training, such as 0.05, or set every_steps to 0"
        )
    wrong = [level for level in given.levels if not 0 < level <= 1]
    if given.every_steps and (wrong or not given.levels):
        raise InputError(
            f"validation.levels={list(given.levels)}: noise levels are above 0 and up to 1, and there must be one"
        )


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


def check_size(config: TrainConfig, samples: Samples) -> None:
    """Raise InputError for frames or pixels that do not fill the family's latent grid; every sample has the size
    of the first."""
    from pipeline.families import family_type

    height_px, width_px = samples.shards.read(samples.rows[0]).label_map.shape[1:]
    grid = family_type(config.model.family.name).look(config.model.family).grid
    try:
        grid.size(config.data.num_frames, height_px, width_px)
    except InputError as error:
        raise InputError(
            f"data.num_frames={config.data.num_frames}, samples of {width_px}x{height_px}: {error} (frames by "
            "data.num_frames; pixels by windows.width_px and windows.height_px of castbank prepare)"
        ) from error


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
