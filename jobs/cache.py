"""``castbank cache``: the face embeddings of all samples, computed ahead so that training computes none."""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import config as configs
from jobs import knobs
from pipeline.config import TrainConfig

if TYPE_CHECKING:
    from jobs.progress import ProgressBar
    from pipeline.data import Samples

SUMMARY = """Compute ahead what castbank train would compute while it trains: the face embeddings of every sample's
references and of its own frames, under the same keys.

It takes the configuration of castbank train (run= is not needed) and works on every core of this machine, or of the
Ray that RAY_ADDRESS names. Run again after an interruption and it goes on; run again with nothing changed and it
does nothing. Latents and text embeddings are not cached."""

EXAMPLE = "castbank cache --config jobs/configs/train_tiny.yaml data.shards=shards"
CHUNK = (
    8  # samples of one task: a second of work, so that a kill costs little and tasks are worth their start
)
READERS = 16  # of files that are there; on a network file system they wait more than they work
MAX_ATTEMPTS = 3  # of a chunk whose process dies
TIMEOUT_S = 600.0  # per chunk


class CacheError(Exception):
    """Features could not be computed although the samples are whole: a bug, or a machine that fails."""


@dataclass(frozen=True)
class Chunk:
    """What a worker needs to compute some features. opened: pickled arguments of Samples, as bytes because what is
    opened for them is kept by them; indices: of the chosen samples."""

    opened: bytes
    indices: tuple[int, ...]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes; 0 (the default): one per core"
    )
    knobs.add_arguments(parser, TrainConfig, EXAMPLE)


def run(args: argparse.Namespace) -> int:
    """Compute what is missing and say how much that was; 0."""
    from data_prep.records import InputError
    from jobs.progress import ProgressBar
    from jobs.train import recogniser_of
    from jobs.train_checks import ALLOWED, check_cast
    from pipeline.data import Samples

    if args.workers < 0:
        raise InputError(f"--workers: came {args.workers}; give 0 for one per core, or a number of processes")
    config = configs.load(TrainConfig, args.config, ["run=none", *args.overrides])
    configs.check_ranges(config, {key: limits for key, limits in ALLOWED.items() if key.startswith("data.")})
    opened = (config.data, config.seed, recogniser_of(config))
    samples = Samples(*opened)
    check_cast(config, samples)  # training would refuse it; better before it waits for its machines
    with ProgressBar() as progress:
        missing = find_missing(samples, progress)
        if missing:
            compute(pickle.dumps(opened), missing, args.workers, samples.store.folder, progress)
    said = f"{len(missing)} computed" if missing else "nothing to do, all were there"
    sys.stdout.write(f"face features of {len(samples)} samples in {samples.store.folder}: {said}\n")
    return 0


def find_missing(samples: Samples, progress: ProgressBar) -> list[int]:
    """Indices of the chosen samples whose features are not on disk, or damaged."""
    missing: list[int] = []
    with ThreadPoolExecutor(READERS) as threads:
        looking = [threads.submit(samples.has_features, index) for index in range(len(samples))]
        try:
            for index, found in enumerate(looking):
                if not found.result():
                    missing.append(index)
                progress("check", index + 1, len(looking))
        finally:  # stopped: what is not begun is not waited for
            threads.shutdown(wait=False, cancel_futures=True)
    return missing


def compute(opened: bytes, missing: list[int], num_workers: int, folder: Path, progress: ProgressBar) -> None:
    """Compute the features of these samples in other processes; each is on disk as soon as it is computed.

    Raises:
        InputError: a sample is damaged, has too few frames, or the disk is full.
        CacheError: the computing itself failed.
    """
    from data_prep.isolation import Failure, Limits, Task, Workers

    chunks = [tuple(missing[at : at + CHUNK]) for at in range(0, len(missing), CHUNK)]
    tasks = [Task(f"samples-{chunk[0]:08d}", Chunk(opened, chunk)) for chunk in chunks]
    done = 0
    progress("embed", done, len(missing))
    with (
        Workers(num_workers) as workers,
        tempfile.TemporaryDirectory(dir=folder, prefix=f".log-{os.getpid()}-") as logs,
    ):
        limits = Limits(MAX_ATTEMPTS, TIMEOUT_S)
        for task, result in workers.run(compute_chunk, tasks, limits, Path(logs)):
            if isinstance(result, Failure):
                raise CacheError(f"{task.name}: {result.error_class}\n{result.detail}")
            done += len(task.item.indices)
            progress("embed", done, len(missing))


def compute_chunk(chunk: Chunk) -> None:
    """In a worker: see to it that these features are on disk."""
    samples = _samples(chunk.opened)
    for index in chunk.indices:
        samples.keep_features(index)


@lru_cache(maxsize=1)
def _samples(opened: bytes) -> Samples:
    """The samples, opened once per process: reading the index of a large corpus takes longer than a chunk."""
    from pipeline.data import Samples

    return Samples(*pickle.loads(opened))
