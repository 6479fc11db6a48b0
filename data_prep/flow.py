"""The whole of preparation, top to bottom: clips in, a shard folder out.

Each clip is analysed by a task that may crash without harm, and its analysis is committed by one rename, so that
a killed run loses at most what was being worked on. Everything after is a function of the committed analyses:
the same inputs give the same shards, byte for byte, however often the run was interrupted. Memory does not grow
with the footage: pixels stay in the analyses' folders until a shard is written, one clip at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from data_prep import catalogue, ledger
from data_prep.analyse import analyse
from data_prep.captioning.questions import Captioner
from data_prep.captioning.stage import CAPTIONS, recaption
from data_prep.commit import NEXT, WORK, full_disk_is_said, publish, sole_user
from data_prep.config import PrepareConfig
from data_prep.faces.packs import PackSpec
from data_prep.fingerprints import REMEMBERED, inputs_sha256
from data_prep.identities import Linked, link
from data_prep.isolation import Failure, Limits, Task, Workers
from data_prep.manifest import read_clips
from data_prep.records import U8, AnalysedClip, Decision, Json, Progress
from data_prep.references import Candidate, candidates_of
from data_prep.samples import CropAddress, Plan, build, select
from data_prep.shards import IndexRow, ShardError, write_index, write_shard
from data_prep.shards.files import read_manifest
from data_prep.work import (
    AnalyseOne,
    ClipWork,
    addresses,
    analyse_missing,
    analysed,
    forget_stale,
    settled,
    too_many,
)

OPEN_CLIPS = 8  # analyses that a packing worker keeps open: a shard's references come from a few clips
SHARD_TIMEOUT_S = 600.0


class PackError(Exception):
    """A shard could not be written although every clip of it was analysed: a bug, or a machine that fails."""


@dataclass(frozen=True)
class Prepared:
    """A finished shard folder: facts are its manifest's; worked is False where nothing had to be done."""

    folder: Path
    facts: Json
    worked: bool


@dataclass(frozen=True)
class ShardJob:
    """What a worker needs to write one shard; works: the clips that its samples and references come from."""

    path: Path
    plans: tuple[Plan, ...]
    works: dict[str, ClipWork]


def prepare(
    config: PrepareConfig,
    on_progress: Progress,
    *,
    analyse_one: AnalyseOne = analyse,
    retry_quarantined: bool = False,
    captioner: Captioner | None = None,
) -> Prepared:
    """Clips to shards in ``config.output``; does nothing where the shards of these inputs are already there.
    ``captioner``: who is asked for captions, None for nobody.

    Raises:
        InputError: something given is wrong, too many clips were quarantined, or the disk is full. What was
            analysed stays, so that the same call goes on from there.
    """
    config, pack = settled(config)
    output = Path(config.output)
    with full_disk_is_said(output), sole_user(output, config.run.lock_wait_s) as desk:
        clips, decisions = read_clips(config.manifest, config.clips, config.ingest)
        works = addresses(clips, config, pack, output / WORK / REMEMBERED, on_progress)
        inputs = inputs_sha256({work.clip.id: work.key for work in works}, clips, decisions, config)
        finished = finished_facts(output, inputs)
        if finished is not None and not (retry_quarantined and finished["num_quarantined"]):
            return Prepared(output, finished, worked=False)
        with Workers(config.run.num_workers) as workers:
            failed = analyse_missing(workers, works, config, desk, on_progress, analyse_one=analyse_one)
            _refuse_many(failed, len(works), config)
            kept = analysed(works, output)
            linked = _link(kept, config, pack, on_progress)
            plans, selected = _select(kept, linked, config, on_progress)
            plans, plain = _caption(plans, kept, captioner, config, on_progress)
            decisions += [*failed, *_fates(kept, linked), *selected, *plain]
            rows = _pack(workers, plans, {work.clip.id: work for work in kept}, config, desk, on_progress)
        facts = catalogue.facts(linked, decisions, rows, config)
        catalogue.write(output / NEXT, linked, decisions, rows)
        write_index(output / NEXT, rows, inputs, facts)
        publish(output)
        forget_stale(output / WORK, works)
    return Prepared(output, facts, worked=True)


def finished_facts(output: Path, inputs: str) -> Json | None:
    """The manifest's facts where the output holds the shards of these inputs, every file with its size."""
    try:
        manifest = read_manifest(output)
    except ShardError:
        return None  # of another version: made again
    if manifest is None or manifest.inputs_sha256 != inputs:
        return None
    files = [(output / shard.name, shard.num_bytes) for shard in manifest.shards]
    whole = all(path.is_file() and path.stat().st_size == size for path, size in files)
    return manifest.facts if whole and (output / ledger.LEDGER).is_file() else None


def _refuse_many(quarantined: Sequence[Decision], num_clips: int, config: PrepareConfig) -> None:
    allowed = config.run.max_quarantined * num_clips
    if len(quarantined) > allowed:
        raise too_many(quarantined, num_clips, f"allowed are {allowed:g}")


def _link(works: Sequence[ClipWork], config: PrepareConfig, pack: PackSpec, on_progress: Progress) -> Linked:
    known = catalogue.known_characters(Path(config.output))
    on_progress("link", 0, 1)
    linked = link((w.load() for w in works), config.link, pack.name, known)
    on_progress("link", 1, 1)
    return linked


def _select(
    works: Sequence[ClipWork], linked: Linked, config: PrepareConfig, on_progress: Progress
) -> tuple[list[Plan], list[Decision]]:
    character_of = linked.character_of()
    candidates: dict[str, list[Candidate]] = {}
    for work in works:
        for candidate in candidates_of(work.load(crops=True), character_of):
            candidates.setdefault(candidate.character_id, []).append(candidate)
    plans: list[Plan] = []
    decisions: list[Decision] = []
    for at, work in enumerate(works, 1):
        found, fates = select(work.load(windows=True), character_of, candidates, config)
        plans += found
        decisions += fates
        on_progress("select", at, len(works))
    return sorted(plans, key=lambda plan: plan.note.key), decisions


def _caption(
    plans: list[Plan],
    works: Sequence[ClipWork],
    captioner: Captioner | None,
    config: PrepareConfig,
    on_progress: Progress,
) -> tuple[list[Plan], list[Decision]]:
    """With a captioner, captions that say who is who; nothing is asked where no sample is left."""
    if captioner is None or not plans:
        return plans, []
    cache = Path(config.captions.cache or Path(config.output) / CAPTIONS / "answers.jsonl")
    clips = {work.clip.id: work for work in works}
    return recaption(plans, clips, captioner, config.captions, cache, on_progress)


def _fates(works: Sequence[ClipWork], linked: Linked) -> list[Decision]:
    """What analysis and linking decided about clips and tracks, the kept ones included."""
    decisions = list(linked.decisions)
    for work in works:
        own = work.load().decisions
        decisions += own
        if not any(decision.kind == "clip" for decision in own):
            decisions.append(Decision(work.clip.id, "clip", "kept", "analyse"))
    for character in linked.characters:
        decisions += [Decision(t, "track", "kept", "link", value=character.id) for t in character.track_ids]
    return decisions


def _pack(
    workers: Workers,
    plans: Sequence[Plan],
    works: Mapping[str, ClipWork],
    config: PrepareConfig,
    desk: Path,
    on_progress: Progress,
) -> list[IndexRow]:
    """Write the shards of the next generation; rows in the order of the samples. ``works`` by clip id."""
    folder = Path(config.output) / NEXT
    folder.mkdir()
    size = config.pack.samples_per_shard
    parts = [tuple(plans[at : at + size]) for at in range(0, len(plans), size)]
    tasks = []
    for at, part in enumerate(parts):
        needed = {plan.note.clip_id for plan in part}
        needed |= {place.clip_id for plan in part for slot in plan.crops for place in slot}
        name = f"shard-{at:06d}"  # as SHARDS has it
        tasks.append(
            Task(name, ShardJob(folder / f"{name}.tar", part, {clip: works[clip] for clip in needed}))
        )
    written: dict[str, tuple[IndexRow, ...]] = {}
    limits = Limits(config.run.max_attempts, SHARD_TIMEOUT_S)
    for task, result in workers.run(pack_shard, tasks, limits, desk):
        if isinstance(result, Failure):
            raise PackError(f"{task.name} could not be written: {result.error_class}\n{result.detail}")
        written[task.name] = result
        on_progress("pack", len(written), len(tasks))
    return [row for _, rows in sorted(written.items()) for row in rows]


def pack_shard(job: ShardJob) -> tuple[IndexRow, ...]:
    """In a worker: build the samples one at a time and write them as one shard."""

    @lru_cache(maxsize=OPEN_CLIPS)
    def clip(clip_id: str) -> AnalysedClip:
        return job.works[clip_id].load(crops=True, windows=True)

    def crop(place: CropAddress) -> U8:
        track = next(track for track in clip(place.clip_id).tracks if track.id == place.track_id)
        return np.asarray(track.crops[place.crop])

    return write_shard(job.path, (build(plan, clip(plan.note.clip_id), crop) for plan in job.plans))
