"""Where each clip's analysis lies: a folder of the output's ``.work`` named by the clip and by all that the
analysis depends on, so that a folder that is there is the right one.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data_prep import analysis_store
from data_prep.commit import WORK
from data_prep.config import PrepareConfig
from data_prep.faces.packs import PackSpec
from data_prep.fingerprints import PackFiles, analysis_key, hash_files, inputs_sha256
from data_prep.records import AnalysedClip, Clip, Decision, Progress


@dataclass(frozen=True)
class ClipWork:
    """A clip and where its analysis is, or will be."""

    clip: Clip
    folder: Path

    def load(self, *, crops: bool = False, windows: bool = False) -> AnalysedClip:
        """The analysis under the manifest's present words: captions and consent may change without a new one."""
        return replace(analysis_store.load(self.folder, crops=crops, windows=windows), clip=self.clip)


def addresses(
    clips: Sequence[Clip],
    ingest: Sequence[Decision],
    config: PrepareConfig,
    pack: PackSpec,
    on_progress: Progress,
) -> tuple[list[ClipWork], str]:
    """Where each clip's analysis belongs, ordered by clip id, and the fingerprint of all inputs."""
    work = Path(config.output) / WORK
    hashes = hash_files([Path(clip.path) for clip in clips], work, on_progress)
    files = PackFiles(pack.name, dict(pack.files))
    keys = {clip.id: analysis_key(clip, hashes[Path(clip.path)], config, files) for clip in clips}
    works = [ClipWork(clip, work / f"{clip.id}-{keys[clip.id]}") for clip in clips]
    return sorted(works, key=lambda w: w.clip.id), inputs_sha256(keys, clips, ingest, config)


def forget_stale(folder: Path, works: Sequence[ClipWork]) -> None:
    """Remove analyses that no clip of the manifest has any more."""
    current = {work.folder.name for work in works}
    for left in folder.iterdir():
        if left.is_dir() and left.name not in current:
            shutil.rmtree(left)
