"""The whole of preparation, top to bottom: clips in, a shard folder out.

Each clip is analysed by a task that may crash without harm, and its analysis is committed by one rename, so that
a killed run loses at most what was being worked on. Everything after is a function of the committed analyses:
the same inputs give the same shards, byte for byte, however often the run was interrupted. Memory does not grow
with the footage: pixels stay in the analyses' folders until a shard is written, one clip at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep import catalogue, ledger, lineage
from data_prep.analyse import analyse
from data_prep.captioning.questions import Captioner
from data_prep.captioning.stage import CAPTIONS, recaption
from data_prep.commit import NEXT, WORK, full_disk_is_said, publish, sole_user
from data_prep.config import PrepareConfig
from data_prep.earlier import read_earlier
from data_prep.faces.packs import PackSpec
from data_prep.fingerprints import REMEMBERED, inputs_sha256
from data_prep.identities import Linked, link
from data_prep.isolation import Workers
from data_prep.lineage import standing
from data_prep.manifest import read_clips
from data_prep.overrides import Overrides, read_overrides
from data_prep.packing import Corpus, pack
from data_prep.records import Decision, Json, Progress
from data_prep.references import Candidate, candidates_of
from data_prep.samples import Plan, select
from data_prep.shards import ShardError, write_index
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


@dataclass(frozen=True)
class Prepared:
    """A finished shard folder: facts are its manifest's; worked is False where nothing had to be done; num_written
    and num_kept: shards that were written, and those of the generation before that stay."""

    folder: Path
    facts: Json
    worked: bool
    num_written: int = 0
    num_kept: int = 0


def prepare(
    config: PrepareConfig,
    on_progress: Progress,
    *,
    analyse_one: AnalyseOne = analyse,
    retry_quarantined: bool = False,
    repack: bool = False,
    captioner: Captioner | None = None,
) -> Prepared:
    """Clips to shards in ``config.output``; does nothing where the shards of these inputs are already there, and
    writes only those that are new or hold something that changed, or, with ``repack``, all of them. ``captioner``:
    who is asked for captions, None for nobody.

    Raises:
        InputError: something given is wrong, too many clips were quarantined, or the disk is full. What was
            analysed stays, so that the same call goes on from there.
    """
    config, faces = settled(config)
    output = Path(config.output)
    with full_disk_is_said(output), sole_user(output, config.run.lock_wait_s) as desk:
        clips, decisions = read_clips(config.manifest, config.clips, config.ingest)
        works = addresses(clips, config, faces, output / WORK / REMEMBERED, on_progress)
        overrides = read_overrides(config.link.overrides)
        keys = {work.clip.id: work.key for work in works}
        inputs = inputs_sha256(keys, clips, decisions, config, overrides.as_json())
        finished = finished_facts(output, inputs)
        if finished is not None and not repack and not (retry_quarantined and finished["num_quarantined"]):
            return Prepared(output, finished, worked=False)
        with Workers(config.run.num_workers) as workers:
            failed = analyse_missing(workers, works, config, desk, on_progress, analyse_one=analyse_one)
            _refuse_many(failed, len(works), config)
            kept = analysed(works, output)
            linked = _link(kept, config, faces, overrides, on_progress)
            plans, selected = _select(kept, linked, config, on_progress)
            plans, plain = _caption(plans, kept, captioner, config, on_progress)
            decisions += [*failed, *_fates(kept, linked), *selected, *plain]
            corpus = Corpus({w.clip.id: w for w in kept}, linked, standing(output, config), repack)
            packed = pack(workers, plans, corpus, config, desk, on_progress)
        facts = catalogue.facts(linked, decisions, packed.rows, config)
        catalogue.write(output / NEXT, linked, decisions, packed.rows)
        lineage.write(output / NEXT, packed.lines)
        write_index(output / NEXT, packed.rows, inputs, facts, packed.files)
        publish(output)
        forget_stale(output / WORK, works)
    num_kept = packed.num_kept
    return Prepared(output, facts, worked=True, num_written=len(packed.files) - num_kept, num_kept=num_kept)


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


def _link(
    works: Sequence[ClipWork],
    config: PrepareConfig,
    pack: PackSpec,
    overrides: Overrides,
    on_progress: Progress,
) -> Linked:
    earlier = read_earlier(Path(config.output))
    on_progress("link", 0, 1)
    linked = link((w.load() for w in works), config.link, pack.name, earlier, overrides)
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
