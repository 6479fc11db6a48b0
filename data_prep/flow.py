"""The whole of preparation, top to bottom: clips in, a shard folder out.

Each clip is analysed by a task that may crash without harm, and its analysis is committed by one rename, so that
a killed run loses at most what was being worked on. Everything after is a function of the committed analyses:
the same inputs give the same shards, byte for byte, however often the run was interrupted. Memory does not grow
with the footage: pixels stay in the analyses' folders until a shard is written, one clip at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data_prep import ledger
from data_prep.analysis.analyse import analyse
from data_prep.captioning.questions import Captioner
from data_prep.captioning.stage import CAPTIONS, recaption
from data_prep.config import PrepareConfig
from data_prep.faces.packs import PackSpec
from data_prep.identity.earlier import read_earlier
from data_prep.identity.identities import Linked, link
from data_prep.identity.overrides import Overrides, read_overrides
from data_prep.ingest.manifest import read_clips
from data_prep.ledger import page as ledger_page
from data_prep.ledger.quarantine import Quarantine, chosen
from data_prep.packing import catalogue, lineage
from data_prep.packing.lineage import standing
from data_prep.packing.pack import Corpus, Packed, pack
from data_prep.records import Decision, Json, Progress
from data_prep.running.commit import NEXT, STOPPED, WORK, full_disk_is_said, publish, sole_user
from data_prep.running.fingerprints import REMEMBERED, inputs_sha256
from data_prep.running.isolation import Workers
from data_prep.running.stages import Busy, Stage, StageClock, nobody
from data_prep.running.work import (
    AnalyseOne,
    ClipWork,
    Place,
    TooManyFailedError,
    addresses,
    analyse_missing,
    analysed,
    forget_stale,
    replay_command,
    settled,
)
from data_prep.selection.references import Candidate, candidates_of
from data_prep.selection.samples import Plan, select
from data_prep.shards import ShardError, write_index
from data_prep.shards.files import read_manifest


@dataclass(frozen=True)
class Prepared:
    """A finished shard folder: facts are its manifest's; worked is False where nothing had to be done; num_written
    and num_kept: shards that were written, and those of the generation before that stay; stages: what took how
    long."""

    folder: Path
    facts: Json
    worked: bool
    num_written: int = 0
    num_kept: int = 0
    stages: tuple[Stage, ...] = ()


@dataclass(frozen=True)
class Again:
    """What is done again although it was done before. replay: which quarantined clips are tried
    (``data_prep.ledger.quarantine.chosen``), empty for none; repack: whether all shards are written anew."""

    replay: str = ""
    repack: bool = False


@dataclass(frozen=True)
class _Order:
    """What is to be made. works: every clip; ingest: rows that gave none; inputs: the fingerprint of all of it;
    repack: no shard that stands may stay."""

    works: Sequence[ClipWork]
    ingest: Sequence[Decision]
    inputs: str
    faces: PackSpec
    overrides: Overrides
    captioner: Captioner | None
    repack: bool


def prepare(
    config: PrepareConfig,
    on_progress: Progress,
    *,
    analyse_one: AnalyseOne = analyse,
    again: Again = Again(),
    on_busy: Busy = nobody,
    captioner: Captioner | None = None,
) -> Prepared:
    """Clips to shards in ``config.output``; does nothing where the shards of these inputs are already there, and
    writes only those that are new or hold something that changed.

    Args:
        config: what to prepare, how and where.
        on_progress: is told stage, items done, items in all.
        analyse_one: what makes an analysis of a clip.
        again: what is done again.
        on_busy: is told how busy workers are.
        captioner: who is asked for captions, None for nobody.

    Raises:
        InputError: something given is wrong, or the disk is full.
        TooManyFailedError: more clips failed than may; ``stopped/`` in the output has their ledger. What was
            analysed stays in any case, so that the same call goes on from there.
    """
    config, faces = settled(config)
    output = Path(config.output)
    with (
        full_disk_is_said(output),
        sole_user(output, config.run.lock_wait_s) as desk,
        Workers(config.run.num_workers) as workers,
    ):
        clock = StageClock(on_progress, on_busy, workers.worked_s)
        clips, ingest = read_clips(config.manifest, config.clips, config.ingest)
        works = addresses(clips, config, faces, output / WORK / REMEMBERED, clock)
        num_failed = _num_failed(again.replay, Quarantine(output / WORK), works)
        overrides = read_overrides(config.link.overrides)
        keys = {work.clip.id: work.key for work in works}
        inputs = inputs_sha256(keys, clips, ingest, config, overrides.as_json())
        finished = finished_facts(output, inputs)
        if finished is not None and not again.repack and finished["num_quarantined"] == num_failed:
            return Prepared(output, finished, worked=False)
        place = Place(workers, config, desk, clock, analyse_one)
        order = _Order(works, ingest, inputs, faces, overrides, captioner, again.repack)
        facts, packed = _make(order, place)
    num_written = len(packed.files) - packed.num_kept
    return Prepared(output, facts, True, num_written, packed.num_kept, clock.stages())


def _num_failed(replay: str, quarantine: Quarantine, works: Sequence[ClipWork]) -> int:
    """How many clips failed earlier and are not to be tried again; why the chosen ones did is forgotten."""
    known = quarantine.known([work.folder.name for work in works])
    again = chosen(replay, known, {work.clip.id for work in works}) if replay else []
    quarantine.forget(again)
    return len(known) - len(again)


def _make(order: _Order, place: Place) -> tuple[Json, Packed]:
    """Everything after the clips are known, to the published folder; its facts and shards."""
    config, output = place.config, Path(place.config.output)
    try:
        failed = analyse_missing(order.works, place, len(order.works), Quarantine(output / WORK))
    except TooManyFailedError as error:
        _note_stopped(output / STOPPED, order.ingest, error.failed, config)
        raise
    kept = analysed(order.works, output)
    linked = _link(kept, order, place)
    plans, selected = _select(kept, linked, config, place.on_progress)
    plans, plain = _caption(plans, kept, order.captioner, config, place.on_progress)
    decisions = [*order.ingest, *failed, *_fates(kept, linked), *selected, *plain]
    corpus = Corpus({w.clip.id: w for w in kept}, linked, standing(output, config), order.repack)
    packed = pack(place.workers, plans, corpus, config, place.desk, place.on_progress)
    facts = catalogue.facts(linked, decisions, packed.rows, config)
    catalogue.write(output / NEXT, linked, decisions, packed.rows)
    lineage.write(output / NEXT, packed.lines)
    write_index(output / NEXT, packed.rows, order.inputs, facts, packed.files)
    publish(output)
    forget_stale(output / WORK, order.works)
    return facts, packed


def _note_stopped(
    folder: Path, ingest: Sequence[Decision], failed: Sequence[Decision], config: PrepareConfig
) -> None:
    """The ledger of a run that is stopped: its configuration lies beside it, not beside the shards."""
    named = [replace(why, replay=replay_command(why.item, config, folder)) for why in failed]
    ledger_page.write_both(folder, [*ingest, *named])


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


def _link(works: Sequence[ClipWork], order: _Order, place: Place) -> Linked:
    earlier = read_earlier(Path(place.config.output))
    place.on_progress("link", 0, 1)
    clips = (work.load() for work in works)
    linked = link(clips, place.config.link, order.faces.name, earlier, order.overrides)
    place.on_progress("link", 1, 1)
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
    on_progress("select", 0, len(works))
    for at, work in enumerate(works, 1):
        clip = work.load(windows=True)
        found, fates = select(clip, character_of, candidates, config, excluded=linked.excluded)
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
        seen = work.load()
        decisions += seen.decisions
        if not any(decision.kind == "clip" for decision in seen.decisions):
            medium = f"{seen.medium}; by {seen.decoder}; sha256 {seen.fingerprint}"
            decisions.append(Decision(work.clip.id, "clip", "kept", "analyse", detail=medium))
    for character in linked.characters:
        decisions += [Decision(t, "track", "kept", "link", value=character.id) for t in character.track_ids]
    return decisions
