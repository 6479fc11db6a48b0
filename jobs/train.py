"""``castbank train``: shards to a run folder with checkpoints, metrics and an export; run again, it goes on."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from data_prep.records import InputError
from jobs import config as configs
from jobs import knobs
from jobs.progress import ProgressBar
from jobs.train_checks import check, check_cast
from pipeline.config import TrainConfig

if TYPE_CHECKING:
    from pipeline.data import Samples
    from pipeline.features import Recogniser
    from pipeline.objective import DiffusionObjective
    from pipeline.ranks import Rank
    from pipeline.tracker import TrackedRun

SUMMARY = """Train a video diffusion transformer and its identity bank on shards.

The run's folder holds the resolved configuration, metrics, checkpoints and, at the end, the export. The same
command after an interruption goes on from the last checkpoint, exactly. SIGTERM and SIGUSR1 checkpoint and exit
with 75 (run it again); Ctrl-C checkpoints too; a second Ctrl-C ends at once."""

EXAMPLE = "castbank train --config jobs/configs/train_tiny.yaml run=runs/first data.shards=shards"
METRICS = "metrics.jsonl"
PRELOAD = ("pipeline.engine", "diffusers")  # imported once for all ranks


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    knobs.add_arguments(parser, TrainConfig, EXAMPLE)


def run(args: argparse.Namespace) -> int:
    """Train to the end; 0, or 75 where a signal asked to stop."""
    from pipeline.ranks import Rank, launch
    from pipeline.run_folder import claimed

    config = configs.load(TrainConfig, args.config, args.overrides)
    check(config)
    recogniser = recogniser_of(config)
    logs = Path(config.run) / "logs"

    def start(report: Callable[[Any], None]) -> int:
        if "RANK" in os.environ:  # torchrun, srun or Ray has started one process per rank
            return train_rank(Rank.from_environment(os.environ, report), config, recogniser)
        return launch(config.engine.num_processes, train_rank, (config, recogniser), logs, report, PRELOAD)

    if int(os.environ.get("RANK", "0")) > 0:
        return start(lambda _: None)
    with claimed(Path(config.run)):
        return run_first(config, recogniser, start)


def recogniser_of(config: TrainConfig) -> Recogniser:
    """The recogniser of the configured face pack.

    Raises:
        InputError: the pack is unknown or not installed, or its embeddings have another width than the model reads.
    """
    from data_prep.faces.packs import find_pack
    from data_prep.faces.recogniser import embed_crops
    from pipeline.features import Recogniser, file_sha256

    pack = find_pack(config.data.pack)
    width = config.model.identity.embedding_dim
    if pack.spec.dim != width:
        raise InputError(
            f"model.identity.embedding_dim={width}: face pack {config.data.pack!r} embeds in {pack.spec.dim}; set "
            f"model.identity.embedding_dim={pack.spec.dim}, or take another data.pack"
        )
    embed = partial(embed_crops, config.data.pack)
    return Recogniser(config.data.pack, embed, file_sha256(pack.recogniser), width, pack.spec.min_norm)


def run_first(
    config: TrainConfig, recogniser: Recogniser, start: Callable[[Callable[[Any], None]], int]
) -> int:
    """What the launching process, or the first of several that a launcher started, does around the training."""
    from pipeline.data import Samples, Share

    folder = Path(config.run)
    world = int(os.environ.get("WORLD_SIZE", config.engine.num_processes))
    Share(config.batch_size, 0, world, config.engine.accumulation)  # says so now if it does not divide
    samples = Samples(config.data, config.seed, recogniser)
    check_cast(config, samples)
    run_id = register(config, samples)
    with Observer(
        config, tracked_run(config, samples, run_id)
    ) as observer:  # also sends what an earlier start kept
        if (folder / "export").is_dir():
            sys.stdout.write(f"{folder} is trained and exported already; nothing to do\n")
            return 0
        make_initial(config, samples)
        observer.code = start(observer)
        if observer.code == 0:
            from jobs.train_finish import finish

            for path in finish(config, build(config), samples, recogniser):
                observer.show(path)
            sys.stdout.write(f"trained {config.num_steps} steps; the export is {folder / 'export'}\n")
    return observer.code


def register(config: TrainConfig, samples: Samples) -> str:
    """Write or compare the run's configuration and data; returns the run's id."""
    from pipeline.run_folder import CONFIG, open_run

    folder = Path(config.run)
    found = folder / CONFIG
    earlier = configs.flat(configs.load(TrainConfig, found, [])) if (folder / "run.json").is_file() else {}
    data = samples.shards.manifest.index_sha256
    return open_run(folder, configs.to_yaml(config), configs.flat(config), earlier, data)


def make_initial(config: TrainConfig, samples: Samples) -> None:
    """The model before the first step, once, where there is no base; every rank loads it."""
    import torch

    from pipeline import model as models

    initial = Path(config.run) / "initial"
    if config.base or initial.is_dir():
        return
    aside = initial.with_name(".initial.partial")
    model = models.create(config.model, samples.videos(), config.seed)
    with torch.no_grad():
        models.save(model, aside)
    aside.rename(initial)


def tracked_run(config: TrainConfig, samples: Samples, run_id: str) -> TrackedRun:
    """What the tracker says about the run once."""
    from pipeline.tracker import TrackedRun

    folder, manifest = Path(config.run), samples.shards.manifest
    counts = {key: value for key, value in manifest.facts.items() if isinstance(value, int | float | str)}
    return TrackedRun(
        id=run_id,
        folder=folder,
        parameters=configs.flat(config),
        tags={"castbank.checkpoints": str((folder / "checkpoints").resolve()), "castbank.base": config.base},
        dataset=samples.shards.folder,
        dataset_digest=manifest.index_sha256[:36],
        profile={**counts, "num_samples": manifest.num_samples, "num_chosen": len(samples)},
    )


def build(config: TrainConfig) -> DiffusionObjective:
    """The objective of a run, what is trained in it set; the same on every rank."""
    from pipeline import adapters, objective
    from pipeline import model as models

    model = models.load(Path(config.base or f"{config.run}/initial"))
    model.config = config.model
    adapters.apply(model.transformer, model.identity, config.model.adapter, config.seed)
    return objective.build(config.model, model, config.seed)


def train_rank(rank: Rank, config: TrainConfig, recogniser: Recogniser) -> int:
    """One rank from joining the others to leaving them; 0, or 75 where it was asked to stop."""
    from pipeline import adapters, engine
    from pipeline.checkpoints import Checkpoints
    from pipeline.data import Samples, Share, Stream
    from pipeline.trainer import Note, Trainer

    engine.join(config.engine)
    try:
        checkpoints = Checkpoints(
            Path(config.run) / "checkpoints",
            config.checkpoints.keep_last,
            rank.index,
            rank.world,
            engine.gather,
        )
        found = checkpoints.newest(lambda text: rank.report(Note(text)))
        universal = found is not None and found.world != rank.world and config.engine.zero_stage > 0
        if found is not None and universal:
            engine.make_universal(found.folder)
        objective, share = (
            build(config),
            Share(config.batch_size, rank.index, rank.world, config.engine.accumulation),
        )
        model = objective.model
        groups = adapters.trainable_groups(model.transformer, model.identity, config.model.adapter)
        optimizer = engine.adamw(groups, config.optimizer)
        wrapped = engine.Engine(objective, optimizer, config.engine, share.micro, universal)
        if found is not None:
            wrapped.load(found.folder)
        first_step = found.step if found is not None else 0
        samples = Samples(config.data, config.seed, recogniser)
        stream = Stream(samples, share, range(first_step, config.num_steps), config.data)
        return Trainer(recorded(rank, config), wrapped, stream, checkpoints, config).run(first_step)
    finally:
        engine.leave()


def recorded(rank: Rank, config: TrainConfig) -> Rank:
    """The rank, with each reported step in the metrics file first: no checkpoint is ahead of it."""
    from pipeline.run_folder import MetricsFile
    from pipeline.trainer import StepDone

    metrics = MetricsFile(Path(config.run) / METRICS)

    def report(event: Any) -> None:
        if isinstance(event, StepDone):
            metrics.append(event.step, event.scalars)
        rank.report(event)

    return replace(rank, report=report)


class Observer:
    """Receives what the first rank reports: progress line and tracker."""

    def __init__(self, config: TrainConfig, run: TrackedRun) -> None:
        from pipeline.tracker import TRACKERS

        self._total, self._bar = config.num_steps, ProgressBar()
        self._tracker = TRACKERS[config.tracking.kind](config.tracking, run)
        self._untold: Path | None = run.folder / METRICS
        self.code = 0

    def __enter__(self) -> Observer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        self._catch_up()
        stopped = self.code != 0 or (kind is not None and issubclass(kind, KeyboardInterrupt))
        self._tracker.close("KILLED" if stopped else "FAILED" if kind else "FINISHED")

    def __call__(self, event: Any) -> None:
        from pipeline.trainer import Note, StepDone

        if isinstance(event, StepDone):
            self._catch_up()
            self._tracker.log(event.step, event.scalars)
            self._bar("train", event.step, self._total, f"loss {event.scalars['loss']:.4f}")
        elif isinstance(event, Note):
            self.say(event.text)

    def _catch_up(self) -> None:
        """Log the steps that were recorded by an attempt that died before telling; not before the first step, as
        a tracker may start a thread, and a rank in this process forks its loading processes before that."""
        from pipeline.run_folder import read_metrics

        lines = read_metrics(self._untold) if self._untold else []
        self._untold = None
        for line in lines:
            self._tracker.log(int(line["step"]), line)

    def show(self, path: Path) -> None:
        """A sample video or picture, for the tracker."""
        self._tracker.artifact(path, "samples")

    def say(self, text: str) -> None:
        """One line for the person who watches."""
        sys.stderr.write(f"castbank train: {text}\n")
