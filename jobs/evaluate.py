"""``castbank evaluate``: videos and reference faces to a similarity matrix, a picture of it and a page."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.atomic import write_atomic
from data_prep.records import InputError
from jobs.layouts import read_layout
from jobs.outputs import check_folder

if TYPE_CHECKING:
    from data_prep.records import U8
    from pipeline.judging.evaluate import Evaluation
    from pipeline.judging.galleries import Gallery

SUMMARY = """Who is recognisable in a video, and who bled into whom.

Writes evaluation.json, evaluation.html and one PNG per video into --output.
References are a folder (anna/*.png or anna.png: pictures that show her face), prepared shards, an identity bank, or
a run, whose bank is then taken. A run's folder as VIDEO stands for the sample videos that its training made.

examples:
  castbank evaluate runs/first --output judged
  castbank evaluate out.mp4 --references faces/ --cast anna,ben --output judged
  castbank evaluate seeds/*.mp4 --references shards/ --layout layout.png"""

IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


@dataclass(frozen=True)
class References:
    """Galleries, one per recogniser, and a face u8[112,112,3] to show of each character that has a picture."""

    galleries: tuple[Gallery, ...]
    portraits: dict[str, U8]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``castbank evaluate``."""
    parser.add_argument(
        "videos", type=Path, nargs="+", metavar="VIDEO", help="a video, or the folder of a run with samples"
    )
    parser.add_argument(
        "--references",
        type=Path,
        metavar="FOLDER",
        help="faces, shards, a bank or a run; default: the run that is given as VIDEO",
    )
    parser.add_argument(
        "--cast",
        help="names, comma between, who should be in every video; default: what the note beside a generated video "
        "says, else everybody there are references of",
    )
    parser.add_argument("--layout", type=Path, help="grey PNG: pixel k is where the k-th of the cast belongs")
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="look at every N-th frame; default: 1"
    )
    parser.add_argument("--output", type=Path, default=Path("evaluation"), metavar="FOLDER")


def run(args: argparse.Namespace) -> int:
    """Evaluate every video; nothing is written before all were read."""
    if args.every < 1:
        raise InputError(f"--every: came {args.every}; give 1 for every frame, or more.")
    videos = [video for given in args.videos for video in _videos(given)]
    check_folder("--output", args.output)
    layout = None if args.layout is None else read_layout(args.layout)
    references = load_references(args.references or _only_bank(args.videos))
    casts = [_cast(video, args.cast, references) for video in videos]
    evaluations = []
    for video, cast in zip(videos, casts, strict=True):
        evaluations.append(_evaluate(video, references, cast, layout, args.every))
        _say(video, evaluations[-1])
    _write(args.output, videos, evaluations, references)
    return 0


def _videos(given: Path) -> list[Path]:
    """The video itself, or the sample videos of a run; raises InputError where there is none."""
    if given.is_file():
        return [given]
    if not _is_run(given):
        kind = "is a folder, and no run's" if given.is_dir() else "not found"
        raise InputError(f"{given}: {kind}; give a video file, or the folder of a run.")
    samples = sorted((given / "samples").glob("*.mp4"))
    if not samples:
        raise InputError(
            f"{given}: this run has no sample videos yet; castbank train makes them at its end, as many as "
            "tracking.num_samples says. Or give videos of castbank generate."
        )
    return samples


def _is_run(folder: Path) -> bool:
    """Whether it is a run's folder; one that has just begun has neither an export nor samples."""
    return any((folder / name).exists() for name in ("export", "samples", "run.json"))


def _only_bank(given: Sequence[Path]) -> Path:
    """The bank of the run that is given, which has the references where none are given."""
    runs = sorted({path for path in given if _is_run(path)})
    if len(runs) != 1:
        came = f"came {len(runs)} runs: {', '.join(map(str, runs))}" if runs else "no run is given as VIDEO"
        raise InputError(f"--references: {came}; give the folder of faces, shards, a bank or one run.")
    bank = runs[0] / "export" / "bank"
    if not bank.is_dir():
        raise InputError(
            f"{runs[0]}: this run has no identity bank yet; castbank train exports it at its end. Or give "
            "--references."
        )
    return bank


def load_references(folder: Path) -> References:
    """Reference faces out of a folder of pictures, prepared shards, an identity bank, or a run with one.

    Raises InputError where it is none of them, or a picture shows no face.
    """
    from data_prep.faces import packs
    from pipeline.judging.galleries import gallery

    if not folder.is_dir():
        raise InputError(f"--references: {folder} is not a folder; give faces, shards or an identity bank.")
    if (folder / "index.jsonl").is_file():
        crops = _from_shards(folder)
    elif bank := _bank_in(folder):
        return _from_bank(bank)
    else:
        crops = _from_pictures(folder)
    installed = [name for name in ("embedded", "embedded_alt") if not packs.problem(packs.PACKS[name])]
    if not installed:
        packs.find_pack("embedded")  # raises, and says how to install it
    portraits = {name: faces[0] for name, faces in crops.items()}
    return References(tuple(gallery(pack, crops) for pack in installed), portraits)


def _bank_in(folder: Path) -> Path | None:
    """Where the bank is: here, or in the export or the run whose folder this is."""
    places = (folder, folder / "bank", folder / "export" / "bank")
    return next((place for place in places if (place / "manifest.json").is_file()), None)


def _from_shards(folder: Path) -> dict[str, U8]:
    """The faces that enrolment would choose: at most five of each character, spread over yaw."""
    import numpy as np

    from data_prep.shards import ShardSet
    from pipeline.identity.enrol import gather_references

    shards = ShardSet.open(folder)
    found = gather_references(shards.read(index) for index in range(len(shards)))
    return {name: np.stack([image for _, image in one.chosen()]) for name, one in sorted(found.items())}


def _from_bank(folder: Path) -> References:
    from pipeline.identity.bank import IdentityBank
    from pipeline.judging.galleries import Gallery

    entries = IdentityBank.load(folder).entries.values()
    by_pack = {entry.pack for entry in entries}
    if len(by_pack) != 1:
        raise InputError(
            f"--references: {folder} mixes face packs {sorted(by_pack)}; enrol everybody with one."
        )
    faces = {entry.name: entry.references.numpy() for entry in entries}
    return References((Gallery(by_pack.pop(), faces),), {})


def _from_pictures(folder: Path) -> dict[str, U8]:
    """``anna.png`` or ``anna/*.png``; a picture of exactly 112 × 112 is taken to be aligned already."""
    import cv2
    import numpy as np

    from data_prep.faces import analyser_for

    pictures = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGES)
    if not pictures:
        raise InputError(f"--references: no picture in {folder}; put NAME.png or NAME/*.png there.")
    crops: dict[str, list[U8]] = {}
    for path in pictures:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise InputError(f"--references: {path} is not a whole picture; replace or remove it.")
        crop = np.ascontiguousarray(image[..., ::-1])
        if crop.shape[:2] != (112, 112):
            analyser = analyser_for()
            faces = analyser.detect(crop)
            if not faces:
                raise InputError(f"--references: no face found in {path}; give a picture that shows one.")
            largest = max(faces, key=lambda face: float((face.box_px[2:] - face.box_px[:2]).prod()))
            crop = analyser.measure(crop, largest).crop
        name = path.relative_to(folder).parts[0]
        crops.setdefault(Path(name).stem if path.parent == folder else name, []).append(crop)
    return {name: np.stack(faces) for name, faces in crops.items()}


def _cast(video: Path, given: str | None, references: References) -> tuple[str, ...]:
    """Who should be in the video: as given, as its note says, or everybody; each with references."""
    cast = tuple(references.galleries[0].faces)
    if given is not None:
        cast = tuple(name.strip() for name in given.split(",") if name.strip())
    else:
        cast = _noted_cast(video.with_suffix(".json")) or cast
    if not cast:
        raise InputError("--cast: nobody; name at least one character, comma between")
    references.galleries[0].means(cast)  # raises where someone has no references, before the videos are read
    return cast


def _noted_cast(note: Path) -> tuple[str, ...]:
    """The cast in the note that ``castbank generate`` writes beside a video; empty without such a note."""
    if not note.is_file():
        return ()
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        return tuple(content["cast"]) if isinstance(content, dict) and "cast" in content else ()
    except (ValueError, TypeError) as error:
        raise InputError(f"{note}: is no note of castbank generate ({error}); say who with --cast") from error


def _evaluate(
    video: Path, references: References, cast: Sequence[str], layout: U8 | None, every: int
) -> Evaluation:
    from data_prep.decode import iter_frames
    from data_prep.faces import analyser_for
    from data_prep.probe import UnusableError, probe
    from jobs.progress import ProgressBar
    from pipeline.judging.evaluate import judge
    from pipeline.judging.sight import see

    seen = []
    try:
        total = probe(video).num_frames
        with ProgressBar() as progress:
            for chunk in iter_frames(video, max_chunk_bytes=64 * 1024**2):
                taken = chunk.frames[-chunk.start % every :: every]
                seen += see(taken, analyser_for())
                progress(video.name, chunk.start + len(chunk.frames), total)
    except UnusableError as error:
        raise InputError(f"{video}: {error}; give a whole video file.") from error
    return judge(seen, references.galleries, cast, layout)


def _say(video: Path, evaluation: Evaluation) -> None:
    """The table of one video, as lines."""
    import numpy as np

    lines = [f"{video}: {evaluation.num_frames} frames, {evaluation.num_faces:.2f} faces a frame"]
    width = max(8, *(len(name) for name in evaluation.cast))
    for scores in evaluation.scores:
        swapped = "nobody seen" if np.isnan(scores.swap_rate) else f"swapped {scores.swap_rate:.1%}"
        lines.append(f"  {scores.pack}: {swapped}; rows seen, columns reference")
        lines.append(" " * (width + 4) + " ".join(name.rjust(width) for name in evaluation.cast))
        for i, name in enumerate(evaluation.cast):
            cells = ["-" if np.isnan(v) else f"{v:.2f}" for v in scores.similarity[i]]
            tail = f"  seen {scores.coverage[i]:.0%}, recognised {scores.recognised[i]:.0%}"
            lines.append(f"    {name.ljust(width)}" + " ".join(cell.rjust(width) for cell in cells) + tail)
    sys.stdout.write("\n".join(lines) + "\n")


def _write(
    output: Path, videos: Sequence[Path], evaluations: Sequence[Evaluation], references: References
) -> None:
    from pipeline.judging.means import mean_of
    from pipeline.judging.page import as_json, matrix_picture, page, png

    comparable = len(videos) > 1 and len({evaluation.cast for evaluation in evaluations}) == 1
    mean = [mean_of(evaluations)] if comparable else []
    output.mkdir(parents=True, exist_ok=True)
    for number, (video, evaluation) in enumerate(zip(videos, evaluations, strict=True)):
        picture = matrix_picture(evaluation, references.portraits)
        write_atomic(output / f"{number:02d}-{video.stem}.png", png(picture))
    titles = [f"All {len(videos)} videos, mean"] * len(mean) + [str(video) for video in videos]
    html = page(titles, [*mean, *evaluations], references.portraits)
    write_atomic(output / "evaluation.html", html.encode())
    rows = [{"video": str(v), **as_json(e)} for v, e in zip(videos, evaluations, strict=True)]
    content = {"videos": rows, "mean": as_json(mean[0]) if mean else None}
    write_atomic(output / "evaluation.json", json.dumps(content, indent=1, ensure_ascii=False).encode())
    sys.stdout.write(f"{output / 'evaluation.html'}: {len(evaluations)} evaluated\n")
