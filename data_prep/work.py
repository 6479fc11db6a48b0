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

from data_prep import analysis_store
from data_prep.commit import WORK, whole_folder
from data_prep.config import PrepareConfig
from data_prep.faces.matte import find_matte
from data_prep.faces.packs import PackSpec, find_pack
from data_prep.fingerprints import MEMORIES, REMEMBERED, PackFiles, analysis_key, hash_files
from data_prep.ingest.archives import DamagedError
from data_prep.ingest.fetch import local_clip
from data_prep.ingest.storage import Storage
from data_prep.isolation import Failure, Limits, Task, Workers
from data_prep.limits import with_pack_limits
from data_prep.records import AnalysedClip, Clip, Decision, InputError, Progress
from data_prep.text_area import require

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
    workers: Workers,
    works: Sequence[ClipWork],
    config: PrepareConfig,
    desk: Path,
    on_progress: Progress,
    *,
    analyse_one: AnalyseOne,
) -> list[Decision]:
    """Analyse what is not analysed yet; the decisions are the clips that had to be quarantined."""
    there = {work.folder for work in analysed(works, Path(config.output))}
    missing = [work for work in works if work.folder not in there]
    tasks = [Task(work.clip.id, AnalyseJob(work, config, desk, analyse_one)) for work in missing]
    limits = Limits(config.run.max_attempts, config.decode.timeout_s)
    quarantined: list[Decision] = []
    done = len(there)
    on_progress("analyse", done, len(works))
    for task, result in workers.run(analyse_clip, tasks, limits, desk):
        if isinstance(result, Failure):
            quarantined.append(_quarantined(task.name, result, config))
        done += 1
        on_progress("analyse", done, len(works))
    return quarantined


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


def too_many(quarantined: Sequence[Decision], num_clips: int, allowed: str) -> InputError:
    """What to say when more clips failed than may; the first, by name, is shown."""
    first = min(quarantined, key=lambda decision: decision.item)
    return InputError(
        f"run.max_quarantined: {len(quarantined)} of {num_clips} clips failed, {allowed}; the "
        f"first is {first.item}: {first.error_class} after {first.attempts} attempts\n{first.detail}"
    )


def forget_stale(folder: Path, works: Sequence[ClipWork]) -> None:
    """Remove analyses that no clip of the manifest has any more, and parts' memories: all is known here now."""
    current = {work.folder.name for work in works}
    for left in folder.iterdir():
        if left.is_dir() and left.name not in current and not left.name.startswith("."):
            shutil.rmtree(left)
        elif left.match(MEMORIES) and left.name != REMEMBERED:
            left.unlink()


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
