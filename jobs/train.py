"""``castbank train``: shards to a run folder with checkpoints, metrics and an export; run again, it goes on."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.records import InputError
from jobs import config as configs
from jobs import knobs
from jobs.train_checks import check, check_cast, check_size
from jobs.train_observer import Observer
from pipeline.config import EngineConfig, TrainConfig

if TYPE_CHECKING:
    from jobs.train_place import Surroundings
    from pipeline.data.features import Recogniser
    from pipeline.data.samples import Samples
    from pipeline.objective.face_network import FaceNetwork
    from pipeline.objective.objective import DiffusionObjective
    from pipeline.ranks.rank import Beat, Rank
    from pipeline.tracking.tracker import TrackedRun

SUMMARY = """Train a video diffusion transformer and its identity bank on shards.

The run's folder holds the resolved configuration, metrics, checkpoints and, at the end, the export. The same
command after an interruption goes on from the last checkpoint, exactly. SIGTERM and SIGUSR1 checkpoint and exit
with 75 (run it again); Ctrl-C checkpoints too; a second Ctrl-C ends at once. For a first look: --dry-run, then
--overfit 4."""

EXAMPLE = "castbank train --config jobs/configs/train_tiny.yaml run=runs/first data.shards=shards"
PRELOAD = ("pipeline.training.engine", "diffusers")  # imported once for all ranks


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument(
        "--dry-run", action="store_true", help="make two updates, say what it takes, write nothing"
    )
    parser.add_argument(
        "--overfit", type=int, metavar="N", help="the same as data.overfit=N, for a first look"
    )
    knobs.add_arguments(parser, TrainConfig, EXAMPLE)


def run(args: argparse.Namespace) -> int:
    """Train to the end; 0, or 75 where a signal asked to stop, or 1 where it could not begin and may later."""
    from jobs.train_place import Surroundings
    from pipeline.ranks.rank import LeaveError

    overfit = [] if args.overfit is None else [f"data.overfit={args.overfit}"]
    config = configs.load(TrainConfig, args.config, [*args.overrides, *overfit])
    check(config)
    around, recogniser = Surroundings.of(os.environ), recogniser_of(config)
    try:
        if args.dry_run:
            from jobs.train_trial import run_dry

            return run_dry(config, recogniser, around)
        start = run_one_rank if around.launched else run_all
        return start(config, recogniser, around)
    except LeaveError as error:
        sys.stderr.write(f"castbank train: {error}\n")
        return 1


def run_all(config: TrainConfig, recogniser: Recogniser, around: Surroundings) -> int:
    """All ranks, on this machine."""
    from cluster import heartbeats
    from pipeline.ranks.launch import launch
    from pipeline.training.run_folder import claimed

    folder, args = Path(config.run), (config, recogniser, around)

    def start(report: Callable[[Any], None]) -> int:
        heartbeats.forget(heartbeats.path_of(around.care(config).base, 0).parent)
        return launch(config.engine.num_processes, forked_rank, args, folder / "logs", report, PRELOAD)

    with claimed(folder, around.take_over_s):
        return run_first(config, recogniser, around, start, lambda phase, step: around.fence.check())


def forked_rank(rank: Rank, config: TrainConfig, recogniser: Recogniser, around: Surroundings) -> int:
    """One of the processes that ``run_all`` starts."""
    from jobs.train_place import alive
    from jobs.train_rank import train_rank
    from pipeline.ranks.joining import Meeting

    limit_s, training = config.engine.join_timeout_s, around.training(config)
    with alive(rank, config, around) as living, Meeting(rank, limit_s, training) as meeting:
        return train_rank(living, config, recogniser, meeting)


def run_one_rank(config: TrainConfig, recogniser: Recogniser, around: Surroundings) -> int:
    """The one rank that a launcher started this process as; the first one also does what is done once."""
    from jobs.train_place import alive, launched_rank
    from jobs.train_rank import train_rank
    from pipeline.ranks.joining import Meeting
    from pipeline.ranks.rank import stopped_by_signals
    from pipeline.training.run_folder import claimed

    assert around.launched is not None
    rank = launched_rank(around.launched)
    with Meeting(rank, config.engine.join_timeout_s, around.training(config)) as meeting:
        if rank.index > 0:
            with stopped_by_signals(rank.stop), alive(rank, config, around) as living:
                return train_rank(living, config, recogniser, meeting)
        with claimed(Path(config.run), around.take_over_s), alive(rank, config, around) as living:

            def start(report: Callable[[Any], None]) -> int:
                with stopped_by_signals(rank.stop):
                    return train_rank(replace(living, report=report), config, recogniser, meeting)

            return run_first(config, recogniser, around, start, living.beat)


def recogniser_of(config: TrainConfig) -> Recogniser:
    """The recogniser of the configured face pack.

    Raises:
        InputError: the pack is unknown or not installed, its embeddings have another width than the model reads, or
            it has no face mesh where the low-frequency path needs landmarks.
    """
    from data_prep.faces.landmarks import find_mesh, five_points
    from data_prep.faces.packs import find_pack
    from data_prep.faces.recogniser import embed_crops
    from pipeline.data.features import Recogniser, file_sha256

    pack = find_pack(config.data.pack)
    width = config.model.identity.embedding_dim
    if pack.spec.dim != width:
        raise InputError(
            f"model.identity.embedding_dim={width}: face pack {config.data.pack!r} embeds in {pack.spec.dim}; set "
            f"model.identity.embedding_dim={pack.spec.dim}, or take another data.pack"
        )
    embed = partial(embed_crops, config.data.pack)
    found = Recogniser(config.data.pack, embed, file_sha256(pack.recogniser), width, pack.spec.min_norm)
    if not config.model.identity.low_frequency:
        return found
    try:
        mesh = find_mesh(config.data.pack)
    except InputError as error:
        raise InputError(f"model.identity.low_frequency, data.pack={config.data.pack!r}: {error}") from error
    points = partial(five_points, config.data.pack)
    return replace(found, landmarks=points, landmarks_sha256=file_sha256(mesh))


def run_first(
    config: TrainConfig,
    recogniser: Recogniser,
    around: Surroundings,
    start: Callable[[Callable[[Any], None]], int],
    beat: Beat,
) -> int:
    """What the launching process, or the first of several that a launcher started, does around the training."""
    from pipeline.data.order import Share
    from pipeline.data.samples import Samples

    beat("starting", 0)
    folder = Path(config.run)
    Share(
        config.batch_size, 0, around.world(config), config.engine.accumulation
    )  # says so now if it does not divide
    samples = Samples(config.data, config.seed, recogniser)
    check_cast(config, samples)
    check_size(config, samples)
    run_id = register(config, samples)
    tracked = tracked_run(config, samples, run_id, around.tags())
    with Observer(config, tracked, around.costs) as observer:  # also sends what an earlier start kept
        if (folder / "export").is_dir():
            sys.stdout.write(f"{folder} is trained and exported already; nothing to do\n")
            return 0
        make_initial(config, samples, beat)
        try:
            observer.code = start(observer)
        finally:
            around.fence.check()  # an attempt that is over tells the tracker nothing either
        if observer.code == 0 and config.data.overfit:
            sys.stdout.write(
                f"trained {config.num_steps} steps on {len(samples)} samples alone; no export is made of that\n"
            )
        elif observer.code == 0:
            from jobs.train_finish import finish

            export = partial(beat, "export", config.num_steps)
            export()
            for path in finish(config, build(config), samples, recogniser, export):
                observer.show(path)
            observer.exported(folder / "export")
            sys.stdout.write(f"trained {config.num_steps} steps; the export is {folder / 'export'}\n")
    return observer.code


def register(config: TrainConfig, samples: Samples) -> str:
    """Write or compare the run's configuration and data; returns the run's id."""
    from pipeline.training.run_folder import CONFIG, open_run

    folder = Path(config.run)
    found = folder / CONFIG
    earlier = configs.flat(configs.load(TrainConfig, found, [])) if (folder / "run.json").is_file() else {}
    data = samples.shards.manifest.index_sha256
    return open_run(folder, configs.to_yaml(config), configs.flat(config), earlier, data)


def make_initial(config: TrainConfig, samples: Samples, beat: Beat) -> None:
    """The model before the first step, once, where there is no base; every rank loads it."""
    import torch

    from pipeline import model as models
    from pipeline.families.pretrained import DTYPES

    initial = Path(config.run) / "initial"
    if config.base or initial.is_dir():
        return
    aside = initial.with_name(".initial.partial")

    def videos() -> Iterator[torch.Tensor]:
        for video in samples.videos():  # all of them: this may take long
            beat("starting", 0)
            yield video

    dtype = DTYPES[config.engine.dtype]  # of weights that are had from elsewhere and not written here
    model = models.create(config.model, videos(), config.seed, dtype)
    with torch.no_grad():
        models.save(model, aside)
    aside.rename(initial)


def tracked_run(config: TrainConfig, samples: Samples, run_id: str, tags: Mapping[str, str]) -> TrackedRun:
    """What the tracker says about the run once."""
    from pipeline.tracking.tracker import TrackedRun

    folder, manifest = Path(config.run), samples.shards.manifest
    counts = {key: value for key, value in manifest.facts.items() if isinstance(value, int | float | str)}
    return TrackedRun(
        id=run_id,
        folder=folder,
        parameters=configs.flat(config),
        tags={
            "castbank.checkpoints": str((folder / "checkpoints").resolve()),
            "castbank.base": config.base,
            **tags,
        },
        dataset=samples.shards.folder,
        dataset_digest=manifest.index_sha256[:36],
        profile={**counts, "num_samples": manifest.num_samples, "num_chosen": len(samples)},
    )


def build(
    config: TrainConfig, shown: Sequence[str] = (), engine: EngineConfig | None = None
) -> DiffusionObjective:
    """The objective of a run, what is trained in it set, with error curves of the characters ``shown``; the same on
    every rank. In the precision of an ``engine`` that will train it, else all in fp32."""
    import torch

    from pipeline import adapters
    from pipeline import model as models
    from pipeline.families.pretrained import DTYPES
    from pipeline.identity.bank import IdentityBank
    from pipeline.identity.lock import locked_tokens
    from pipeline.objective import objective

    base, dtype = Path(config.base or f"{config.run}/initial"), DTYPES[engine.dtype if engine else "fp32"]
    folded = (base / "lora").is_dir()  # in fp32, as in the export, and rounded once
    model = models.load(base, torch.float32 if folded else dtype)
    model.config = config.model
    model.base_changed = model.base_changed or config.model.adapter.kind == "full" or folded
    if folded:
        adapters.fold_lora(model.transformer)
        model.convert(dtype)
    base_precision = engine.base_precision if engine else "dtype"
    adapters.apply(model.transformer, model.identity, config.model.adapter, config.seed, base_precision)
    bank = IdentityBank.load(Path(config.base) / "bank") if config.base else None
    locked = locked_tokens(bank, config.model.adapter.lock, config.names)
    return objective.build(config.model, model, config.seed, shown, face_network(config), locked)


def face_network(config: TrainConfig) -> FaceNetwork | None:
    """What the identity loss recognises faces with; None where that loss has no weight."""
    if config.model.losses.identity <= 0:
        return None
    from data_prep.faces.packs import find_pack
    from pipeline.objective.face_network import FaceNetwork

    return FaceNetwork(find_pack(config.data.pack))
