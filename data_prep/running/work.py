"""The clips' analyses: where each lies, and how those that are missing are made.

An analysis is a folder of the output's ``.work`` named by the clip and by all that the analysis depends on, so that
a folder that is there is the right one, whoever made it, when and on which machine.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data_prep import ledger
from data_prep.analysis import store as analysis_store
from data_prep.analysis.limits import with_pack_limits
from data_prep.analysis.text_area import require
from data_prep.config import PrepareConfig
from data_prep.faces.matte import find_matte
from data_prep.faces.packs import PackSpec, find_pack
from data_prep.ingest.archives import DamagedError
from data_prep.ingest.fetch import local_clip
from data_prep.ingest.storage import Storage
from data_prep.ledger.budget import FailureBudget
from data_prep.ledger.quarantine import FAILED, Quarantine
from data_prep.records import AnalysedClip, Clip, Decision, InputError, Progress
from data_prep.running.admission import memory_bytes, timeout_s
from data_prep.running.commit import WORK, whole_folder
from data_prep.running.fingerprints import MEMORIES, REMEMBERED, PackFiles, analysis_key, hash_files
from data_prep.running.isolation import Failure, Limits, Task, Workers

AnalyseOne = Callable[[Clip, PrepareConfig], AnalysedClip]


@dataclass(frozen=True)
class ClipWork:
    """A clip, the key of its analysis, and the folder where that is, or will be."""

    clip: Clip
    key: str
    folder: Path

    def load(self, *, crops: bool = False, windows: bool = False) -> AnalysedClip:
        """The analysis under the manifest's present words: captions and consent may change without a new one."""
        return replace(analysis_store.load(self.folder, crops=crops, windows=windows), clip=self.clip)


@dataclass(frozen=True)
class Place:
    """Who analyses clips, where, and who is told. desk: the folder for what is not finished."""

    workers: Workers
    config: PrepareConfig
    desk: Path
    on_progress: Progress
    analyse_one: AnalyseOne


class TooManyFailedError(InputError):
    """So many clips failed that the run was stopped; says what fails most. failed: all of them."""

    def __init__(self, failed: Sequence[Decision], how_many: str, allowed: str) -> None:
        first = min(failed, key=lambda why: why.item)
        super().__init__(
            f"run.max_quarantined: {how_many}, {allowed}; by error: {ledger.failing_most(failed)}; the first is "
            f"{first.item}: {first.error_class} after {first.attempts} attempts\n{first.detail}"
        )
        self.failed = tuple(failed)


@dataclass(frozen=True)
class AnalyseJob:
    """What a worker needs to analyse one clip; desk: where it may leave what is not finished."""

    work: ClipWork
    config: PrepareConfig
    desk: Path
    analyse_one: AnalyseOne


def settled(config: PrepareConfig) -> tuple[PrepareConfig, PackSpec]:
    """The configuration with its output absolute and the limits that its face pack brings, and that pack."""
    pack = find_pack(config.faces.pack).spec
    require(config.quality.text_detector)
    if config.masks.region == "person":
        find_matte()
    output = str(Path(config.output).resolve())
    return with_pack_limits(replace(config, output=output), pack), pack


def addresses(
    clips: Sequence[Clip], config: PrepareConfig, pack: PackSpec, memory: Path, on_progress: Progress
) -> list[ClipWork]:
    """Where each clip's analysis belongs, ordered by clip id. ``memory``: the file that keeps the hashes."""
    unknown = [clip.path for clip in clips if not clip.content_id]
    hashes = hash_files(Storage(config.ingest), unknown, memory, on_progress)
    files = PackFiles(pack.name, dict(pack.files))
    keys = {
        clip.id: analysis_key(clip, clip.content_id or hashes[clip.path], config, files) for clip in clips
    }
    folder = Path(config.output) / WORK
    works = [ClipWork(clip, keys[clip.id], folder / f"{clip.id}-{keys[clip.id]}") for clip in clips]
    return sorted(works, key=lambda w: w.clip.id)


def analysed(works: Sequence[ClipWork], output: Path) -> list[ClipWork]:
    """Those whose analysis is there, by one listing: a network file system answers a listing afresh, and may
    answer the look-up of a single name from what it remembers of before."""
    with os.scandir(output / WORK) as entries:
        there = {entry.name for entry in entries}
    return [work for work in works if work.folder.name in there]


def analyse_missing(
    works: Sequence[ClipWork], place: Place, budget_share_of: int, quarantine: Quarantine | None = None
) -> list[Decision]:
    """Analyse what is not analysed yet; the decisions are the clips that had to be quarantined, also earlier.

    Clips are taken in the order of their keys, which is none: what the first ones come to is then what all will,
    in time and in failures.

    Args:
        works: the clips.
        place: who does it, and where.
        budget_share_of: number of clips that ``run.max_quarantined`` is a share of.
        quarantine: what is remembered of earlier failures; without it they are tried again.

    Raises:
        TooManyFailedError: more clips failed than may, or it is plain that more will have in the end.
    """
    config, there = place.config, {work.folder for work in analysed(works, Path(place.config.output))}
    missing = sorted((work for work in works if work.folder not in there), key=lambda work: work.key)
    names = {work.folder.name: work for work in missing}
    known = quarantine.known(list(names)) if quarantine else {}
    failed = list(known.values())
    budget = FailureBudget(config.run.max_quarantined, budget_share_of, len(there) + len(known), len(known))
    refuse_many(failed, budget)
    limits = Limits(config.run.max_attempts, config.decode.timeout_s)
    tasks = (
        _task(work, place) for work in missing if work.folder.name not in known
    )  # read one by one as workers become free
    of_clip = {work.clip.id: work for work in missing} if quarantine else {}
    place.on_progress("analyse", budget.num_tried, len(works))
    for task, result in place.workers.run(analyse_clip, tasks, limits, place.desk):
        if isinstance(result, Failure):
            why = _quarantined(task.name, result, config)
            failed.append(why)
            if quarantine:
                quarantine.add(of_clip[task.name].folder.name, why)
        budget.count(isinstance(result, Failure))
        refuse_many(failed, budget)
        place.on_progress("analyse", budget.num_tried, len(works))
    refuse_many(failed, budget, at_end=True)
    return failed


def _task(work: ClipWork, place: Place) -> Task[AnalyseJob]:
    """``work`` as workers get it, with the memory and the time that its pixels and frames need."""
    clip, decode = work.clip, place.config.decode
    job = AnalyseJob(work, place.config, place.desk, place.analyse_one)
    return Task(clip.id, job, memory_bytes(clip, decode), timeout_s(clip, decode))


def analyse_clip(job: AnalyseJob) -> None:
    """In a worker: analyse one clip and commit the result, unless somebody else has meanwhile."""
    if job.work.folder.is_dir():
        return
    clip = job.work.clip
    try:
        with local_clip(clip, job.config.ingest, job.desk) as near:
            result = replace(job.analyse_one(near, job.config), clip=clip)
    except DamagedError as error:
        result = _never_read(clip, error)
    with whole_folder(job.work.folder, job.desk) as aside:
        analysis_store.save(result, aside)


def _never_read(clip: Clip, error: DamagedError) -> AnalysedClip:
    name = Path(clip.path).name
    why = Decision(
        clip.id, "clip", "dropped", "analyse", "unreadable", name, "a whole member", detail=str(error)
    )
    return AnalysedClip(clip, 0, 0, np.zeros(0), (), (), (), decisions=(why,))


def refuse_many(failed: Sequence[Decision], budget: FailureBudget, *, at_end: bool = False) -> None:
    """Raises TooManyFailedError where the failures are more than the budget."""
    if budget.is_exceeded(at_end=at_end):
        raise TooManyFailedError(
            failed, f"{len(failed)} of {budget.num_tried} clips tried failed", f"allowed are {budget.said}"
        )


def forget_stale(folder: Path, works: Sequence[ClipWork]) -> None:
    """Remove analyses that no clip of the manifest has any more, and parts' memories: all is known here now."""
    current = {work.folder.name for work in works}
    for left in folder.iterdir():
        if left.is_dir() and left.name not in {*current, FAILED} and not left.name.startswith("."):
            shutil.rmtree(left)
        elif left.match(MEMORIES) and left.name != REMEMBERED:
            left.unlink()
    Quarantine(folder).keep_only(current)


def replay_command(clip_id: str, config: PrepareConfig, folder: Path) -> str:
    """What tries one clip again with the configuration that lies in ``folder``."""
    places = ["--output", config.output, "--config", str(folder / "config.yaml")]
    return shlex.join(["castbank", "prepare", config.manifest, *places, "--replay", clip_id])


def _quarantined(clip_id: str, failure: Failure, config: PrepareConfig) -> Decision:
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
        replay=replay_command(clip_id, config, Path(config.output)),
    )
