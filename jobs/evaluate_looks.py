"""What ``castbank evaluate`` sees of the videos besides people: motion, flicker, CLIPScore, FID, FVD, and strips of
frames for the page. Each video is decoded once for all of it, and what was found is kept beside its strip, so that
the same command does not look again (but for FID and FVD, which are of all videos together).
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.atomic import write_atomic
from data_prep.records import InputError
from jobs.evaluate_videos import Ask, note_of

if TYPE_CHECKING:
    from jobs.progress import ProgressBar
    from pipeline.judging.video.watch import VideoJudge
    from pipeline.suites.suite import SuiteResults

FOLDER = "frames"  # in the output: strips and what was found
CHUNK_BYTES = 64 * 1024**2
VERSION = 1  # of what is computed here; a change of it makes what is kept worth nothing


@dataclass(frozen=True)
class Looks:
    """figures: of each video by its key; strips: JPEG files by key; whole: figures of all videos together."""

    figures: Mapping[str, Mapping[str, float]]
    strips: Mapping[str, Path]
    whole: Mapping[str, float] = field(default_factory=dict)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that ask for figures of the video."""
    group = parser.add_argument_group("the video", "motion and flicker are always measured")
    group.add_argument(
        "--clip",
        default="",
        metavar="MODEL",
        help="CLIPScore by this CLIP: a folder, or openai/clip-vit-large-patch14",
    )
    group.add_argument(
        "--fid",
        default="",
        metavar="NETWORK",
        help="FID by torchscript:FILE (NVIDIA's inception-2015-12-05.pt), inception (torch-fidelity) or clip:MODEL",
    )
    group.add_argument(
        "--fvd",
        default="",
        metavar="NETWORK",
        help="FVD by torchscript:FILE (StyleGAN-V's i3d_torchscript.pt) or videomae:MODEL",
    )
    group.add_argument(
        "--real", type=Path, metavar="FOLDER", help="of real videos, which FID and FVD compare with"
    )
    group.add_argument(
        "--frames", type=int, default=16, metavar="N", help="of each video for CLIPScore and FID (16)"
    )
    group.add_argument(
        "--fvd-frames", type=int, default=16, metavar="N", help="in a row, of a window of FVD (16)"
    )
    group.add_argument(
        "--suite",
        action="append",
        default=[],
        metavar="SUITE:RESULTS",
        help="figures of a published suite's evaluator as well; castbank suite list says which; may be repeated",
    )


def judge_of(args: argparse.Namespace, videos: Sequence[Path]) -> VideoJudge:
    """The networks that were asked for, loaded; raises InputError where an option is wrong, or what it needs is not
    there."""
    from pipeline.judging.video.watch import Asked, VideoJudge

    for option, value, least in (("--frames", args.frames, 1), ("--fvd-frames", args.fvd_frames, 2)):
        if value < least:
            raise InputError(f"{option}: came {value}; give {least} or more")
    if bool(args.fid or args.fvd) != (args.real is not None):
        came = "--real without --fid or --fvd" if args.real else "--fid or --fvd without --real"
        raise InputError(f"{came}: a Frechet distance is between real and generated videos; give both")
    if args.clip and not any(prompt_of(video) for video in videos):
        raise InputError(
            f"--clip: no prompt is known of {videos[0]}; castbank generate notes it in a .json beside the video, "
            "else put it into a .txt there"
        )
    _real_videos(args.real)
    return VideoJudge(Asked(args.clip, args.fid, args.fvd, args.frames, args.fvd_frames))


def look(asks: Sequence[Ask], judge: VideoJudge, real: Path | None, output: Path) -> Looks:
    """Look at every video, and at the real ones where there are some."""
    from jobs.progress import ProgressBar

    folder = output / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    prompts = [prompt_of(ask.video) for ask in asks]
    figures: dict[str, Mapping[str, float]] = {}
    strips: dict[str, Path] = {}
    with ProgressBar() as progress:
        for video in _real_videos(real):
            _decode(video, judge, "", progress, real=True)
        for ask, prompt in zip(asks, prompts, strict=True):
            stem = folder / _name(ask, judge, prompt)
            figures[ask.key] = _looked_at(ask, judge, prompt, stem, progress)
            strips[ask.key] = stem.with_suffix(".jpg")
    return Looks(figures, strips, judge.distances())


def with_suites(looks: Looks, asks: Sequence[Ask], suites: Sequence[SuiteResults]) -> Looks:
    """The same with what the evaluators of published suites said, as SUITE/FIGURE: of all, and of each video whose
    path ends as the suite names it."""
    figures = {key: dict(found) for key, found in looks.figures.items()}
    whole = dict(looks.whole)
    for one in suites:
        whole |= {f"{one.suite}/{name}": value for name, value in one.figures.items()}
        for ask in asks:
            path = f"/{ask.video.with_suffix('').as_posix()}"
            for name, values in one.videos.items():
                if path.endswith(f"/{name}"):
                    figures[ask.key] |= {f"{one.suite}/{figure}": value for figure, value in values.items()}
    return Looks(figures, looks.strips, whole)


def prompt_of(video: Path) -> str:
    """What was asked for: by the note of castbank generate, or by a text beside the video; empty without either."""
    noted = note_of(video).get("prompt")
    if isinstance(noted, str):
        return noted
    text = video.with_suffix(".txt")
    return text.read_text(encoding="utf-8-sig").strip() if text.is_file() else ""


def _looked_at(
    ask: Ask, judge: VideoJudge, prompt: str, stem: Path, progress: ProgressBar
) -> Mapping[str, float]:
    """What was kept of a video, or what is seen in it now, which is then kept."""
    alone = judge.images is None and judge.videos is None
    if alone and stem.with_suffix(".json").is_file() and stem.with_suffix(".jpg").is_file():
        kept: dict[str, float] = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        return kept
    found, strip = _decode(ask.video, judge, prompt, progress, real=False)
    write_atomic(stem.with_suffix(".jpg"), strip)
    write_atomic(stem.with_suffix(".json"), json.dumps(found).encode())
    return found


def _decode(
    video: Path, judge: VideoJudge, prompt: str, progress: ProgressBar, *, real: bool
) -> tuple[dict[str, float], bytes]:
    """One pass over a video: its figures and its strip."""
    from data_prep.decode import iter_frames
    from data_prep.video.probe import UnusableError, probe
    from pipeline.judging.pages.strips import Strip

    try:
        total = probe(video).num_frames
        watch, strip = judge.watch(video.name, total, prompt, real=real), Strip(total)
        for chunk in iter_frames(video, max_chunk_bytes=CHUNK_BYTES):
            watch.see(chunk.frames)
            strip.see(chunk.frames)
            progress(f"frames of {video.name}", chunk.start + len(chunk.frames), total)
    except UnusableError as error:
        raise InputError(f"{video}: {error}; give a whole video file.") from error
    return watch.figures(), strip.jpeg()


def _real_videos(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    found = sorted(folder.rglob("*.mp4")) if folder.is_dir() else []
    if not found:
        raise InputError(f"--real: no .mp4 in {folder}; give a folder of real videos, at any depth")
    return found


def _name(ask: Ask, judge: VideoJudge, prompt: str) -> str:
    """A file's stem that says what it came from; without a dot, so that an ending can be put on."""
    state = ask.video.stat()
    asked = (VERSION, judge.asked.clip, judge.asked.frames, prompt)
    digest = hashlib.sha256(
        repr((asked, str(ask.video.resolve()), state.st_size, state.st_mtime_ns)).encode()
    )
    return f"{ask.video.stem.replace('.', '_')[:80]}-{digest.hexdigest()[:16]}"
