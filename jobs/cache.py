"""``castbank cache``: what is frozen around the transformer, computed ahead: texts, faces, latents, masks."""

from __future__ import annotations

import argparse
import errno
import os
import pickle
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import config as configs
from jobs import knobs
from jobs.cache_work import Asked, Chunk, Kind, Opened, compute
from pipeline.config import TrainConfig

if TYPE_CHECKING:
    from data_prep.running.isolation import Workers
    from jobs.progress import ProgressBar
    from pipeline.data.features import Recogniser
    from pipeline.data.packs import PackStore

SUMMARY = """Compute ahead what every epoch of castbank train needs alike: embeddings of texts and faces and, for
every window that training will take, video latents and the masks over their cells. Training with the same
configuration then reads them (data.cache) and loads neither text encoder nor video codec; it learns the same.

It takes the configuration of castbank train (run= is not needed) and works on every GPU, else on every core, of
this machine, or of the Ray that RAY_ADDRESS names. Run again after an interruption and it goes on; run again with
nothing changed and it does nothing. What another model, size, window or sample gave is never used."""

EXAMPLE = "castbank cache --config jobs/configs/train_tiny.yaml data.shards=shards"
KINDS: dict[Kind, int] = {  # and how many of each are one task and one file: what a kill may cost
    "text": 64,
    "faces": 8,
    "latents": 16,
}
OF: dict[Kind, str] = {"text": "captions", "faces": "windows", "latents": "windows"}
Item = tuple[str, int, int]
"""A name in the cache, and a (sample, variant) that it is of."""
READERS = 16  # of files that are there; on a network file system they wait more than they work
MAX_ATTEMPTS = 3  # of a chunk whose process dies
LEFT = re.compile(r"\.(log|parts)-(?P<host>.+)-(?P<pid>\d+)-[^-]+")
TIMEOUT_S = 3600.0  # per chunk; the first of a worker also loads its network


class CacheError(Exception):
    """Something could not be computed although the samples are whole: a bug, or a machine that fails."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes on CPUs; 0 (the default): one per core"
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=2,
        metavar="N",
        help="videos encoded at once (default 2); memory grows with it",
    )
    parser.add_argument(
        "--only", choices=tuple(KINDS), action="append", help="this kind alone; may be given twice"
    )
    parser.add_argument(
        "--check", action="store_true", help="read all that is there, and compute again what is damaged"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show buckets and what is missing; compute nothing"
    )
    knobs.add_arguments(parser, TrainConfig, EXAMPLE)


def run(args: argparse.Namespace) -> int:
    """Compute what is missing and say how much that was; 0."""
    from data_prep.running.isolation import Workers
    from jobs.progress import ProgressBar
    from jobs.train import recogniser_of
    from jobs.train_checks import check_cast, check_data
    from jobs.train_samples import bucket_table
    from pipeline.data.features import features_folder

    check_arguments(args)
    config = configs.load(TrainConfig, args.config, args.overrides, {"run": "none"})
    check_data(config)
    with (
        ProgressBar() as progress,
        frozen_parts(config, recogniser_of(config)) as parts,
        Workers(args.workers) as workers,
    ):
        asked = Asked(config, recogniser_of(config), parts, args.batch)
        opened = Opened(asked)
        clear_left(features_folder(config.data))
        opened.samples.know_outlines(progress)
        check_cast(
            config, opened.samples
        )  # training would refuse it; better before it waits for its machines
        table = list(bucket_table(opened.samples, opened.frozen.grid, config.batch_size))
        sys.stdout.write("\n".join(table) + "\n")
        for kind in args.only or KINDS:
            wanted = items_of(opened, kind)
            store = store_of(opened, kind)
            missing = find_missing(store, wanted, args, progress)
            if missing and not args.dry_run:
                compute_all(pickle.dumps(asked), kind, missing, workers, progress)
            progress.close()
            done = "missing" if args.dry_run else "computed"
            what = f"{len(missing)} {done}" if missing else "nothing to do, all were there"
            sys.stdout.write(f"{kind} of {len(wanted)} {OF[kind]} in {store.folder}: {what}\n")
    return 0


def check_arguments(args: argparse.Namespace) -> None:
    """Raise InputError for numbers that make no sense."""
    from data_prep.records import InputError

    if args.workers < 0:
        raise InputError(f"--workers: came {args.workers}; give 0 for one per core, or a number of processes")
    if args.batch < 1:
        raise InputError(f"--batch: came {args.batch}; give 1 or more videos")


@contextmanager
def frozen_parts(config: TrainConfig, recogniser: Recogniser) -> Iterator[Path | None]:
    """Where workers find the family's frozen parts: those of the base, of the run where it has begun, from
    elsewhere (None) where they are pretrained, or fitted here as training would fit them."""
    from pipeline import model as models
    from pipeline.data.features import features_folder
    from pipeline.data.samples import Samples
    from pipeline.families import family_type

    initial = Path(config.run) / "initial"
    if config.base or initial.is_dir() or family_type(config.model.family.name).pretrained:
        yield Path(config.base) if config.base else initial if initial.is_dir() else None
        return
    samples = Samples(config.data, config.seed, recogniser)
    folder = Path(tempfile.mkdtemp(dir=features_folder(config.data), prefix=f".parts-{_me()}-"))
    try:
        model = models.create(config.model, samples.videos(), config.seed)
        model.family.save_frozen(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clear_left(folder: Path) -> None:
    """Remove what a castbank cache that was killed has left unfinished: the folders of one on this machine that is
    no more, and files that nobody has written to for longer than a chunk may take."""
    host = socket.gethostname()
    for path in [*folder.glob(".log-*"), *folder.glob(".parts-*")]:
        found = LEFT.fullmatch(path.name)
        if found and found["host"] == host and not Path(f"/proc/{found['pid']}").exists():
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob("*/.*.safetensors.*"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > TIMEOUT_S:
                path.unlink()


def _me() -> str:
    """Whose unfinished folders they are; hosts that share a folder share no process numbers."""
    return f"{socket.gethostname()}-{os.getpid()}"


def items_of(opened: Opened, kind: Kind) -> list[Item]:
    """All that training will read of a kind."""
    from pipeline.data.frozen import EMPTY

    if kind == "text":
        return [(EMPTY, -1, 0), *((name, index, 0) for name, index in opened.samples.texts().items())]
    return [(name, *place) for name, place in opened.samples.cuts().items()]


def store_of(opened: Opened, kind: Kind) -> PackStore:
    """Where a kind is kept."""
    return {
        "text": opened.cache.text,
        "faces": opened.samples.store.packs,
        "latents": opened.cache.latents,
    }[kind]


def find_missing(
    store: PackStore, wanted: list[Item], args: argparse.Namespace, progress: ProgressBar
) -> list[Item]:
    """What is not on disk, or damaged; that is seen only with ``--check``, except for packs that are cut short. But
    in a dry run a pack with damage is removed, and what else was in it is missing too."""
    kept = [item for item in wanted if item[0] in store]
    sound = looked_at(kept, store.sound, progress) if args.check else {name for name, *_ in kept}
    if args.dry_run:
        return [item for item in wanted if item[0] not in sound]
    for name in {name for name, *_ in kept} - sound:
        if name in store:  # not gone with another of its pack
            store.drop(name)
    return [item for item in wanted if item[0] not in store]


def looked_at(items: list[Item], good: Callable[[str], bool], progress: ProgressBar) -> set[str]:
    """The names that are good."""
    found = set()
    with ThreadPoolExecutor(READERS) as threads:
        looking = [(name, threads.submit(good, name)) for name, *_ in items]
        try:
            for number, (name, answer) in enumerate(looking, 1):
                if answer.result():
                    found.add(name)
                progress("check", number, len(looking))
        finally:  # stopped: what is not begun is not waited for
            threads.shutdown(wait=False, cancel_futures=True)
    return found


def compute_all(
    asked: bytes, kind: Kind, missing: list[Item], workers: Workers, progress: ProgressBar
) -> None:
    """Compute these in other processes; each chunk is on disk as soon as it is computed.

    Raises:
        InputError: a sample is damaged, has too few frames, or the disk is full.
        CacheError: the computing itself failed.
    """
    from data_prep.records import InputError
    from data_prep.running.isolation import Failure, Limits, Task
    from pipeline.data.features import features_folder

    folder = features_folder(pickle.loads(asked).config.data)
    size = KINDS[kind]
    chunks = [tuple(missing[at : at + size]) for at in range(0, len(missing), size)]
    tasks = [Task(f"{kind}-{number:08d}", Chunk(asked, kind, some)) for number, some in enumerate(chunks)]
    done = 0
    progress(kind, done, len(missing))
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".log-{_me()}-") as logs:
        limits = Limits(MAX_ATTEMPTS, TIMEOUT_S)
        try:
            for task, result in workers.run(compute, tasks, limits, Path(logs), on_gpu=kind != "faces"):
                if isinstance(result, Failure):
                    raise CacheError(f"{task.name}: {result.error_class}\n{result.detail}")
                done += len(task.item.items)
                progress(kind, done, len(missing))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise InputError(
                f"data.features={str(folder)!r}: the disk is full after {done} of {len(missing)} {kind}; make "
                "room, or give a folder elsewhere, and run the same command again: it goes on"
            ) from error
