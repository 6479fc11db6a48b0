"""From plans to shards: which stand already, what goes into each new one, and workers that write them.

New samples, and those of a shard that no longer holds, are put together in the order of their keys, up to
``pack.shard_bytes`` of expected size, under the first names that are free. What a sample will weigh is estimated,
so that all shards can be planned before any is written, and be written at once and in any order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from pathlib import Path

import numpy as np

from data_prep.config import PackConfig, PrepareConfig
from data_prep.identity.identities import Linked
from data_prep.packing.lineage import Descent, Generation, descent, held, states
from data_prep.records import U8, AnalysedClip, Progress
from data_prep.running.commit import NEXT
from data_prep.running.isolation import Failure, Limits, Task, Workers
from data_prep.running.work import ClipWork
from data_prep.selection.samples import CropAddress, Plan, build
from data_prep.selection.splits import split_sources
from data_prep.shards import (
    IndexRow,
    ShardFile,
    Split,
    WrittenShard,
    encode_sample,
    row_of,
    shard_name,
    write_tar,
)

OPEN_CLIPS = 8  # analyses that a packing worker keeps open: a shard's references come from a few clips
SHARD_TIMEOUT_S = 600.0


class PackError(Exception):
    """A shard could not be written although every clip of it was analysed: a bug, or a machine that fails."""


@dataclass(frozen=True)
class Corpus:
    """What packing knows beside the plans. works: by clip id; before: the shards that stand in the output; repack:
    none of them may stay, but every source keeps its side of the split."""

    works: Mapping[str, ClipWork]
    linked: Linked
    before: Generation | None
    repack: bool = False


@dataclass(frozen=True)
class Packed:
    """Rows and lineage of every sample, in the order of the shards; files: all shards, num_kept of them written by
    an earlier run."""

    rows: list[IndexRow]
    lines: list[Descent]
    files: list[ShardFile]
    num_kept: int


@dataclass(frozen=True)
class ShardJob:
    """What a worker needs to write one shard; works: the clips that its samples and references come from."""

    path: Path
    split: Split
    plans: tuple[Plan, ...]
    works: dict[str, ClipWork]


def pack(
    workers: Workers,
    plans: Sequence[Plan],
    corpus: Corpus,
    config: PrepareConfig,
    desk: Path,
    on_progress: Progress,
) -> Packed:
    """Write the shards of the next generation that do not stand already. ``plans`` are in the order of their keys.

    Raises:
        InputError: ``pack.validation`` cannot be had without a person on both sides.
        PackError: a shard could not be written.
    """
    output = Path(config.output)
    now = states(corpus.works.values())
    sides = _sides(plans, corpus, config.pack)
    wanted = {p.note.key: (descent(p, "", now), sides[p.note.source_id]) for p in plans}
    before, kept = corpus.before, list[ShardFile]()
    if before is not None and before.as_now and not corpus.repack:
        kept = held(output, before, wanted, now, corpus.linked.character_of())
    names = {file.name for file in kept}
    old = [] if before is None else [row for row in before.rows.values() if row.shard in names]
    there = {row.key for row in old}
    left = [plan for plan in plans if plan.note.key not in there]
    (output / NEXT).mkdir()
    jobs = _jobs(left, sides, names, config)
    written = _write(workers, [_job(*job, corpus, output / NEXT) for job in jobs], config, desk, on_progress)
    rows = sorted(
        [*old, *(row for shard in written for row in shard.rows)], key=lambda r: (r.shard, r.offset)
    )
    lines = [
        before.lines[row.key] if before and row.key in there else replace(wanted[row.key][0], shard=row.shard)
        for row in rows
    ]
    return Packed(rows, lines, [*kept, *(shard.file for shard in written)], len(kept))


def group(plans: Sequence[Plan], limits: PackConfig) -> Iterator[tuple[Plan, ...]]:
    """Consecutive plans, shard by shard; one that is larger than a shard should be has one for itself."""
    part: list[Plan] = []
    size = 0
    for plan in plans:
        if part and (size + plan.num_bytes > limits.shard_bytes or len(part) == limits.samples_per_shard):
            yield tuple(part)
            part, size = [], 0
        part.append(plan)
        size += plan.num_bytes
    if part:
        yield tuple(part)


def pack_shard(job: ShardJob) -> WrittenShard:
    """In a worker: build the samples one at a time and write them as one shard."""

    @lru_cache(maxsize=OPEN_CLIPS)
    def clip(clip_id: str) -> AnalysedClip:
        return job.works[clip_id].load(crops=True, windows=True)

    def crop(place: CropAddress) -> U8:
        track = next(track for track in clip(place.clip_id).tracks if track.id == place.track_id)
        return np.asarray(track.crops[place.crop])

    def samples() -> Iterator[tuple[IndexRow, Mapping[str, bytes]]]:
        for plan in job.plans:
            row = row_of(job.path.name, plan.note, job.split)
            yield row, encode_sample(build(plan, clip(row.clip_id), crop))

    return write_tar(job.path, samples())


def _sides(plans: Sequence[Plan], corpus: Corpus, limits: PackConfig) -> dict[str, Split]:
    """Split by source, of every source that gives a sample or a reference."""
    source_of = {track.id: track.source_id for track in corpus.linked.tracks}
    people = [{source_of[track] for track in person.track_ids} for person in corpus.linked.characters]
    counts = Counter(dict.fromkeys(source_of.values(), 0))
    counts.update(plan.note.source_id for plan in plans)
    return split_sources(counts, people, limits.validation, corpus.before.sides if corpus.before else {})


def _jobs(
    plans: Sequence[Plan], sides: Mapping[str, Split], taken: set[str], config: PrepareConfig
) -> Iterator[tuple[str, Split, tuple[Plan, ...]]]:
    """Name, split and plans of every shard to write."""
    splits: tuple[Split, ...] = ("train", "validation")
    for split in splits:
        free = (name for number in count() if (name := shard_name(split, number)) not in taken)
        own = [plan for plan in plans if sides[plan.note.source_id] == split]
        for name, part in zip(free, group(own, config.pack), strict=False):
            yield name, split, part


def _job(name: str, split: Split, plans: tuple[Plan, ...], corpus: Corpus, folder: Path) -> ShardJob:
    needed = {plan.note.clip_id for plan in plans}
    needed |= {place.clip_id for plan in plans for slot in plan.crops for place in slot}
    return ShardJob(folder / name, split, plans, {clip: corpus.works[clip] for clip in needed})


def _write(
    workers: Workers, jobs: Sequence[ShardJob], config: PrepareConfig, desk: Path, on_progress: Progress
) -> list[WrittenShard]:
    tasks = [Task(job.path.stem, job) for job in jobs]
    limits = Limits(config.run.max_attempts, SHARD_TIMEOUT_S)
    written: list[WrittenShard] = []
    on_progress("pack", 0, len(tasks))
    for task, result in workers.run(pack_shard, tasks, limits, desk):
        if isinstance(result, Failure):
            raise PackError(f"{task.name} could not be written: {result.error_class}\n{result.detail}")
        written.append(result)
        on_progress("pack", len(written), len(tasks))
    return written
