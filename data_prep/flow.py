"""The whole of preparation, top to bottom: clips in, a shard folder out.

Each clip is analysed by a task that may crash without harm, and its analysis is committed by one rename, so that
a killed run loses at most what was being worked on. Everything after is a function of the committed analyses:
the same inputs give the same shards, byte for byte, however often the run was interrupted. Memory does not grow
with the footage: pixels stay in the analyses' folders until a shard is written, one clip at a time.
"""

from __future__ import annotations

import errno
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from data_prep import analysis_store, catalogue, ledger
from data_prep.analyse import analyse
from data_prep.commit import NEXT, WORK, publish, sole_user, whole_folder
from data_prep.config import PrepareConfig
from data_prep.faces.packs import PackSpec, find_pack
from data_prep.identities import Linked, link
from data_prep.isolation import Failure, Limits, Task, Workers
from data_prep.limits import with_pack_limits
from data_prep.manifest import read_clips
from data_prep.records import U8, AnalysedClip, Clip, Decision, InputError, Json, Progress
from data_prep.references import Candidate, candidates_of
from data_prep.samples import CropAddress, Plan, build, select
from data_prep.shards import IndexRow, ShardError, write_index, write_shard
from data_prep.shards.files import read_manifest
from data_prep.work import ClipWork, addresses, forget_stale

AnalyseOne = Callable[[Clip, PrepareConfig], AnalysedClip]
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
class AnalyseJob:
    """What a worker needs to analyse one clip."""

    work: ClipWork
    config: PrepareConfig
    analyse_one: AnalyseOne


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
) -> Prepared:
    """Clips to shards in ``config.output``; does nothing where the shards of these inputs are already there.

    Raises:
        InputError: something given is wrong, too many clips were quarantined, or the disk is full. What was
            analysed stays, so that the same call goes on from there.
    """
    output = Path(config.output).resolve()
    config = replace(config, output=str(output))
    try:
        with sole_user(output):
            return _prepare(config, on_progress, analyse_one, retry_quarantined)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"output {str(output)!r}: the disk is full; make room or choose another output, then run the same "
            "command again: it goes on where it stopped, and nothing half-written stands under a final name"
        ) from error


def _prepare(
    config: PrepareConfig, on_progress: Progress, analyse_one: AnalyseOne, retry_quarantined: bool
) -> Prepared:
    output = Path(config.output)
    pack = find_pack(config.faces.pack).spec
    config = with_pack_limits(config, pack)
    clips, decisions = read_clips(Path(config.manifest), _clips_folder(config))
    works, inputs = addresses(clips, decisions, config, pack, on_progress)
    finished = finished_facts(output, inputs)
    if finished is not None and not (retry_quarantined and finished["num_quarantined"]):
        return Prepared(output, finished, worked=False)
    with Workers(config.run.num_workers) as workers:
        decisions += _analyse_all(workers, works, config, on_progress, analyse_one)
        analysed = [work for work in works if work.folder.is_dir()]
        linked = _link(analysed, config, pack, on_progress)
        plans, selected = _select(analysed, linked, config, on_progress)
        decisions += [*_fates(analysed, linked), *selected]
        rows = _pack(workers, plans, analysed, config, on_progress)
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


def _clips_folder(config: PrepareConfig) -> Path:
    return (Path(config.clips) if config.clips else Path(config.manifest).parent).resolve()


def _analyse_all(
    workers: Workers,
    works: Sequence[ClipWork],
    config: PrepareConfig,
    on_progress: Progress,
    analyse_one: AnalyseOne,
) -> list[Decision]:
    """Analyse what is not analysed yet; the decisions are the clips that had to be quarantined."""
    tasks = [Task(w.clip.id, AnalyseJob(w, config, analyse_one)) for w in works if not w.folder.is_dir()]
    limits = Limits(config.run.max_attempts, config.decode.timeout_s)
    quarantined: list[Decision] = []
    done = len(works) - len(tasks)
    on_progress("analyse", done, len(works))
    for task, result in workers.run(analyse_clip, tasks, limits, Path(config.output) / WORK):
        if isinstance(result, Failure):
            quarantined.append(_quarantined(task.name, result, config))
        done += 1
        on_progress("analyse", done, len(works))
    allowed = config.run.max_quarantined * len(works)
    if len(quarantined) > allowed:
        first = min(quarantined, key=lambda decision: decision.item)
        raise InputError(
            f"run.max_quarantined: {len(quarantined)} of {len(works)} clips failed, allowed are {allowed:g}; the "
            f"first is {first.item}: {first.error_class} after {first.attempts} attempts\n{first.detail}"
        )
    return quarantined


def analyse_clip(job: AnalyseJob) -> None:
    """In a worker: analyse one clip and commit the result."""
    analysed = job.analyse_one(job.work.clip, job.config)
    with whole_folder(job.work.folder) as aside:
        analysis_store.save(analysed, aside)


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
    works: Sequence[ClipWork],
    config: PrepareConfig,
    on_progress: Progress,
) -> list[IndexRow]:
    """Write the shards of the next generation; rows in the order of the samples."""
    folder = Path(config.output) / NEXT
    folder.mkdir()
    by_clip = {work.clip.id: work for work in works}
    size = config.pack.samples_per_shard
    parts = [tuple(plans[at : at + size]) for at in range(0, len(plans), size)]
    tasks = []
    for at, part in enumerate(parts):
        needed = {plan.note.clip_id for plan in part}
        needed |= {place.clip_id for plan in part for slot in plan.crops for place in slot}
        name = f"shard-{at:06d}"  # as SHARDS has it
        tasks.append(
            Task(name, ShardJob(folder / f"{name}.tar", part, {clip: by_clip[clip] for clip in needed}))
        )
    written: dict[str, tuple[IndexRow, ...]] = {}
    limits = Limits(config.run.max_attempts, SHARD_TIMEOUT_S)
    for task, result in workers.run(pack_shard, tasks, limits, Path(config.output) / WORK):
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


def _quarantined(clip_id: str, failure: Failure, config: PrepareConfig) -> Decision:
    places = ["--output", config.output, "--config", f"{config.output}/config.yaml"]
    return Decision(
        item=clip_id,
        kind="clip",
        fate="quarantined",
        stage="analyse",
        rule="failed",
        value=str(failure.attempts),
        limit=f"{config.run.max_attempts} attempts",
        error_class=failure.error_class,
        attempts=failure.attempts,
        detail=failure.detail,
        replay=shlex.join(["castbank", "prepare", config.manifest, *places, "--retry-quarantined"]),
    )
