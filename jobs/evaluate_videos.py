"""Videos one by one for ``castbank evaluate``: each is judged, kept in files of its own and let go again.

A video's result is kept under a name that says what it came from (file, references, cast, layout, step), its last
file written last, so that a run that was killed goes on where it was, and a changed input is judged anew.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.atomic import write_atomic
from data_prep.records import InputError
from jobs.evaluate_references import References

if TYPE_CHECKING:
    from data_prep.records import U8
    from jobs.progress import ProgressBar
    from pipeline.judging.evaluate import Evaluation

VERSION = 1  # of what judging computes; a change of it makes what is kept worth nothing
MAX_SHAPE_ERROR = 0.02  # by how much the sides' ratio of a layout may differ from the video's, as a share

OURS = re.compile(r"\.?.+-[0-9a-f]{16}\.(json|npz)(\..+)?")  # with a dot before and more behind: half written


@dataclass(frozen=True)
class Ask:
    """One video and what is asked of it; layout: u8[H,W] slot numbers, or None; every: look at each so many-th
    frame; key: the same for the same prompt and seed in another evaluation."""

    video: Path
    key: str
    cast: tuple[str, ...]
    layout: U8 | None
    every: int


@dataclass(frozen=True)
class Keeper:
    """The results of single videos in a folder."""

    folder: Path
    references: References

    def evaluate(self, ask: Ask, progress: ProgressBar) -> Evaluation:
        """What is kept of the video, or what is seen in it now, which is then kept."""
        kept = self.read(ask)
        if kept is None:
            kept = _evaluate(ask, self.references, progress)
            self._keep(ask, kept)
        return kept

    def read(self, ask: Ask) -> Evaluation | None:
        """None where nothing whole is kept."""
        import numpy as np

        from pipeline.judging.stored import from_json

        stem = self._stem(ask)
        if not stem.with_suffix(".json").is_file() or not stem.with_suffix(".npz").is_file():
            return None
        row = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        with np.load(stem.with_suffix(".npz"), allow_pickle=False) as arrays:
            return from_json(row, {name: arrays[name] for name in arrays.files})

    def forget_others(self, asks: Sequence[Ask]) -> None:
        """Remove what other videos, or the same with other inputs, left here, and half-written files."""
        wanted = {self._stem(ask).with_suffix(suffix).name for ask in asks for suffix in (".json", ".npz")}
        for path in self.folder.iterdir():
            if path.name not in wanted and OURS.fullmatch(path.name):
                path.unlink()

    def _keep(self, ask: Ask, evaluation: Evaluation) -> None:
        import numpy as np

        from pipeline.judging.stored import arrays_of, as_json

        packed = io.BytesIO()
        np.savez_compressed(packed, **arrays_of(evaluation))
        stem = self._stem(ask)
        write_atomic(stem.with_suffix(".npz"), packed.getvalue())
        write_atomic(stem.with_suffix(".json"), json.dumps(as_json(evaluation), ensure_ascii=False).encode())

    def _stem(self, ask: Ask) -> Path:
        state = ask.video.stat()
        digest = hashlib.sha256(repr((VERSION, state.st_size, state.st_mtime_ns, ask.every)).encode())
        digest.update(repr((str(ask.video.resolve()), ask.cast)).encode())
        for gallery in self.references.galleries:
            digest.update(gallery.pack.encode())
            for name in ask.cast:
                digest.update(gallery.faces[name].tobytes())
        if ask.layout is not None:
            digest.update(repr(ask.layout.shape).encode() + ask.layout.tobytes())
        return self.folder / f"{ask.video.stem.replace('.', '_')}-{digest.hexdigest()[:16]}.x"


def _evaluate(ask: Ask, references: References, progress: ProgressBar) -> Evaluation:
    """Raises InputError for a video that does not decode, or is of another shape than the layout."""
    from data_prep.decode import iter_frames
    from data_prep.faces import analyser_for
    from data_prep.video.probe import UnusableError, probe
    from pipeline.judging.evaluate import judge
    from pipeline.judging.sight import see

    seen, packs = [], [gallery.pack for gallery in references.galleries]
    try:
        total = probe(ask.video).num_frames
        for chunk in iter_frames(ask.video, max_chunk_bytes=64 * 1024**2):
            _check_shape(ask, chunk.frames.shape[1], chunk.frames.shape[2])
            seen += see(chunk.frames[-chunk.start % ask.every :: ask.every], analyser_for(), packs)
            progress(ask.video.name, chunk.start + len(chunk.frames), total)
    except UnusableError as error:
        raise InputError(f"{ask.video}: {error}; give a whole video file.") from error
    return judge(seen, references.galleries, ask.cast, ask.layout, ask.every)


def _check_shape(ask: Ask, height_px: int, width_px: int) -> None:
    if ask.layout is None:
        return
    rows, columns = ask.layout.shape
    if abs(columns / rows * height_px / width_px - 1) > MAX_SHAPE_ERROR:
        raise InputError(
            f"--layout: {columns}x{rows} pixels, and {ask.video} has frames of {width_px}x{height_px}; draw it in "
            "the video's shape, any size will do."
        )


def keys_of(videos: Sequence[Path]) -> list[str]:
    """What pairs each video with its counterpart in another evaluation: cast, prompt and seed as its note says,
    else its file's name, with its folder where two have the same; a number where that is not enough."""
    stems = [video.stem for video in videos]
    keys: list[str] = []
    for video in videos:
        alone = stems.count(video.stem) == 1
        key = _noted_key(video) or (video.stem if alone else f"{video.parent.name}/{video.stem}")
        again = sum(other == key or other.startswith(f"{key} #") for other in keys)
        keys.append(f"{key} #{again + 1}" if again else key)
    return keys


def note_of(video: Path) -> dict[str, object]:
    """The note that ``castbank generate`` writes beside a video; empty without one. Raises InputError for another
    file."""
    note = video.with_suffix(".json")
    if not note.is_file():
        return {}
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{note}: is no note of castbank generate ({error}); say who with --cast") from error
    return content if isinstance(content, dict) else {}


def _noted_key(video: Path) -> str:
    note = note_of(video)
    settings = note.get("config")
    if "prompt" not in note or not isinstance(settings, dict) or "seed" not in settings:
        return ""
    cast = note.get("cast")
    names = ", ".join(map(str, cast)) if isinstance(cast, list) else ""
    return f"{names} | {note['prompt']} | seed {settings['seed']}"
