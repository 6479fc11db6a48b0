"""``castbank evaluate``: videos and reference faces to figures, a similarity matrix, a picture of it and a page."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.atomic import write_atomic
from data_prep.records import InputError, Json
from jobs.evaluate_references import References, load_references
from jobs.evaluate_results import (
    as_content,
    read_evaluation,
    read_schedule,
    say_all,
    say_episode,
    say_video,
    video_row,
    write_content,
)
from jobs.evaluate_videos import Ask, Keeper, keys_of, note_of
from jobs.layouts import read_layout
from jobs.outputs import check_folder

if TYPE_CHECKING:
    from pipeline.judging.across_shots import AcrossShots
    from pipeline.judging.evaluate import Evaluation
    from pipeline.judging.intervals import Difference

SUMMARY = """Who is recognisable in a video, and who bled into whom.

Writes evaluation.json, evaluation.html and one PNG per video into --output, and keeps each video's result in
evaluated/ there, so that the same command goes on where it was killed and judges only what is new.
References are a folder (anna/*.png or anna.png: pictures that show her face), prepared shards, an identity bank, or
a run, whose bank is then taken. A run's folder as VIDEO stands for the sample videos that its training made.
Give pictures or shards for a verdict by two recognisers; a bank has embeddings by one. The README's "Reading the
numbers" says what each figure means.

examples:
  castbank evaluate runs/first --output judged
  castbank evaluate out.mp4 --references faces/ --cast anna,ben --output judged
  castbank evaluate seeds/*.mp4 --references shards/ --layout layout.png
  castbank evaluate b/*.mp4 --references shards/ --output judged-b --against judged-a      # is B better than A?
  castbank evaluate episode/ --references faces/ --schedule episode.json                   # across shots"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``castbank evaluate``."""
    parser.add_argument(
        "videos",
        type=Path,
        nargs="+",
        metavar="VIDEO",
        help="a video, the folder of a run with samples, or with --schedule the folder of an episode",
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
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FOLDER",
        help="another evaluation over the same prompts and seeds: say whether this one is better",
    )
    parser.add_argument(
        "--schedule",
        type=Path,
        metavar="JSON",
        help="who should be in which shot, an EntityBench episode or {'1_1': ['anna']}; videos are SCENE_SHOT.mp4",
    )
    parser.add_argument("--output", type=Path, default=Path("evaluation"), metavar="FOLDER")


def run(args: argparse.Namespace) -> int:
    """Evaluate video after video, then all of them together."""
    if args.every < 1:
        raise InputError(f"--every: came {args.every}; give 1 for every frame, or more.")
    schedule = {} if args.schedule is None else read_schedule(args.schedule)
    videos = [video for given in args.videos for video in _videos(given, tuple(schedule))]
    check_folder("--output", args.output)
    against = None if args.against is None else read_evaluation(args.against)
    layout = None if args.layout is None else read_layout(args.layout)
    references = load_references(args.references or _only_bank(args.videos))
    given_cast = args.cast or ",".join(sorted(set().union(*schedule.values()))) or None
    asks = [
        Ask(video, key, _cast(video, given_cast, references), layout, args.every)
        for video, key in zip(videos, keys_of(videos), strict=True)
    ]
    _check_pairs(asks, against)
    evaluations = _judge_all(asks, references, args.output)
    episode = _episode(asks, evaluations, schedule)
    _write(asks, evaluations, references, args.output, episode, against)
    return 0


def _videos(given: Path, shots: Sequence[str]) -> list[Path]:
    """The video itself, the sample videos of a run, or the shots of an episode's folder in the order of its
    schedule; raises InputError where there is none."""
    if given.is_file():
        if shots and given.stem not in shots:
            raise InputError(
                f"{given}: nothing about shot {given.stem!r} in the schedule; it has {', '.join(shots)}; name "
                "videos so."
            )
        return [given]
    if shots and given.is_dir():
        return _shots(given, shots)
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


def _shots(folder: Path, shots: Sequence[str]) -> list[Path]:
    there = [folder / f"{shot}.mp4" for shot in shots if (folder / f"{shot}.mp4").is_file()]
    if not there:
        raise InputError(f"{folder}: no shot of the schedule lies in it; name them {shots[0]}.mp4 and so on.")
    return there


def _cast(video: Path, given: str | None, references: References) -> tuple[str, ...]:
    """Who should be in the video: as given, as its note says, or everybody; each with references."""
    cast = tuple(references.galleries[0].faces)
    if given is not None:
        cast = tuple(name.strip() for name in given.split(",") if name.strip())
    else:
        cast = _noted_cast(video) or cast
    if not cast:
        raise InputError("--cast: nobody; name at least one character, comma between")
    references.galleries[0].means(cast)  # raises where someone has no references, before the videos are read
    return cast


def _noted_cast(video: Path) -> tuple[str, ...]:
    """The cast in the note that ``castbank generate`` writes beside a video; empty without such a note."""
    cast = note_of(video).get("cast", [])
    if not isinstance(cast, list):
        raise InputError(f"{video.with_suffix('.json')}: its cast is {cast!r}, no list; say who with --cast")
    return tuple(str(name) for name in cast)


def _judge_all(asks: Sequence[Ask], references: References, output: Path) -> list[Evaluation]:
    """One evaluation a video. Pictures are held of the likest so far alone: all lie in what ``Keeper`` keeps."""
    from jobs.progress import ProgressBar
    from pipeline.judging.page import matrix_picture, png

    keeper = Keeper(output / "evaluated", references)
    evaluations: list[Evaluation] = []
    likest: dict[str, float] = {}
    for number, ask in enumerate(asks):
        with ProgressBar() as progress:
            evaluation = keeper.evaluate(ask, progress)
        say_video(ask.video, evaluation)
        picture = png(matrix_picture(evaluation, references.portraits))
        write_atomic(output / f"{number:02d}-{ask.video.stem}.png", picture)
        evaluations.append(_slim(evaluation, likest))
    keeper.forget_others(asks)
    return evaluations


def _slim(evaluation: Evaluation, likest: dict[str, float]) -> Evaluation:
    """Without its pictures unless somebody is liker in it than in all before, which ``likest`` then says."""
    import numpy as np

    from pipeline.judging.means import without_faces

    own = np.nan_to_num(evaluation.scores[0].own, nan=-1.0).max(0)
    liker = {
        name: float(v) for name, v in zip(evaluation.cast, own, strict=True) if v > likest.get(name, -2.0)
    }
    likest.update(liker)
    return evaluation if liker else without_faces(evaluation)


def _episode(
    asks: Sequence[Ask], evaluations: Sequence[Evaluation], schedule: dict[str, frozenset[str]]
) -> list[AcrossShots]:
    """Empty without a schedule."""
    from pipeline.judging.across_shots import across_shots

    if not schedule:
        return []
    shots = {ask.video.stem: evaluation for ask, evaluation in zip(asks, evaluations, strict=True)}
    ordered = {shot: shots[shot] for shot in schedule if shot in shots}
    return across_shots(ordered | shots, schedule)


def _write(
    asks: Sequence[Ask],
    evaluations: Sequence[Evaluation],
    references: References,
    output: Path,
    episode: Sequence[AcrossShots],
    against: Json | None,
) -> None:
    from pipeline.judging.figures import figures
    from pipeline.judging.intervals import intervals
    from pipeline.judging.means import mean_of
    from pipeline.judging.page import page

    comparable = len(asks) > 1 and len({ask.cast for ask in asks}) == 1
    mean = mean_of(evaluations) if comparable else None
    found = intervals([figures(evaluation) for evaluation in evaluations])
    rows = [video_row(ask.video, ask.key, one) for ask, one in zip(asks, evaluations, strict=True)]
    differences = _compared(rows, against)
    write_content(output, as_content(rows, mean, found, episode, differences))
    titles = [f"All {len(asks)} videos, mean"] * (mean is not None) + [str(ask.video) for ask in asks]
    shown = itertools.chain([] if mean is None else [mean], _kept(asks, references, output))
    html = page(titles, shown, references.portraits)
    write_atomic(output / "evaluation.html", html.encode())
    say_all(found, differences)
    say_episode(episode)
    sys.stdout.write(f"{output / 'evaluation.html'}: {len(evaluations)} evaluated\n")


def _kept(asks: Sequence[Ask], references: References, output: Path) -> Iterator[Evaluation]:
    """Each video's evaluation with its pictures, read back one by one."""
    keeper = Keeper(output / "evaluated", references)
    for ask in asks:
        kept = keeper.read(ask)
        assert kept is not None, ask.video
        yield kept


def _compared(rows: Sequence[Json], against: Json | None) -> list[Difference]:
    """Empty without another evaluation."""
    from pipeline.judging.intervals import compare
    from pipeline.judging.stored import by_video

    if against is None:
        return []
    ours, theirs = by_video({"videos": rows}), by_video(against)
    return compare(theirs, ours)


def _check_pairs(asks: Sequence[Ask], against: Json | None) -> None:
    """Raises InputError where no video of the other evaluation is the counterpart of one of these."""
    theirs = [row["key"] for row in against["videos"]] if against else []
    if against and not set(theirs) & {ask.key for ask in asks}:
        raise InputError(
            f"--against: none of its {len(theirs)} videos pairs with one of these {len(asks)}; a pair has the same "
            f"cast, prompt and seed in its notes, or the same name. There: {theirs[0]!r}; here: {asks[0].key!r}."
        )
