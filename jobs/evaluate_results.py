"""What ``castbank evaluate`` says and writes once its videos are judged: tables, evaluation.json, the page."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.atomic import write_atomic
from data_prep.records import InputError, Json

if TYPE_CHECKING:
    from pipeline.judging.across_shots import AcrossShots
    from pipeline.judging.evaluate import Evaluation
    from pipeline.judging.intervals import Difference, Interval

SCHEMA = 1
SHOWN = ("likeness", "margin", "recognised", "swap_rate", "steadiness", "expression_range", "copy_excess")


def read_evaluation(path: Path) -> Json:
    """An evaluation.json, or the one in a folder; raises InputError for another file."""
    file = path / "evaluation.json" if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: no evaluation.json ({error}); give what castbank evaluate wrote"
        ) from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        came = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise InputError(f"{file}: schema {came!r}, this version reads {SCHEMA}; run castbank evaluate again")
    return content


def read_schedule(path: Path) -> dict[str, frozenset[str]]:
    """Who should be in which shot, in the story's order, by SCENE_SHOT: of an EntityBench episode, or an object of
    lists of names. Raises InputError for another file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = content.get("entity_schedule", content)
        return {
            shot.replace(":", "_"): frozenset(names["characters"] if isinstance(names, dict) else names)
            for shot, names in rows.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"--schedule: {path} is no schedule ({error!r}); give an EntityBench episode, or an object such as "
            '{"1_1": ["anna"], "1_2": ["anna", "ben"]}'
        ) from error


def say_video(video: Path, evaluation: Evaluation) -> None:
    """The tables of one video, as lines."""
    import numpy as np

    lines = [f"{video}: {evaluation.num_frames} frames, {evaluation.num_faces:.2f} faces a frame"]
    if not evaluation.num_faces:
        lines.append("  no face was found in it: nobody can be recognised, and most figures have no value")
    width = max(8, *(len(name) for name in evaluation.cast))
    for scores in evaluation.scores:
        swapped = "nobody seen" if np.isnan(scores.swap_rate) else f"swapped {scores.swap_rate:.1%}"
        people = scores.people
        counted = (
            f"{people.missing:.2f} missing, {people.duplicates:.2f} twice, {people.strangers:.2f} strangers"
        )
        lines.append(f"  {scores.pack}: {swapped}; {counted} a frame; rows seen, columns reference")
        lines.append(" " * (width + 4) + " ".join(name.rjust(width) for name in evaluation.cast))
        for i, name in enumerate(evaluation.cast):
            cells = ["-" if np.isnan(v) else f"{v:.2f}" for v in scores.similarity[i]]
            tail = f"  seen {scores.coverage[i]:.0%}, recognised {scores.recognised[i]:.0%}"
            lines.append(f"    {name.ljust(width)}" + " ".join(cell.rjust(width) for cell in cells) + tail)
    sys.stdout.write("\n".join(lines) + "\n")


def say_all(found: Mapping[str, Interval], differences: Sequence[Difference]) -> None:
    """Means over several videos with their intervals, and how they compare."""
    num = max((one.num for one in found.values()), default=0)
    if num > 1:
        sys.stdout.write(f"mean of {num} videos, 95 % interval over videos\n")
        for name, one in found.items():
            if name.split("/", maxsplit=1)[0] in SHOWN:
                sys.stdout.write(f"  {name.ljust(28)} {one.mean:7.3f}  {one.low:7.3f} to {one.high:7.3f}\n")
    if differences:
        sys.stdout.write("A is --against, B is this evaluation\n")
        sys.stdout.writelines(f"  {one.in_words()}\n" for one in differences)


def say_episode(episode: Sequence[AcrossShots]) -> None:
    """Presence against the schedule, and likeness by recurrence gap."""
    for one in episode:
        again = one.recurrence
        sys.stdout.write(
            f"episode by {one.pack}: presence precision {one.precision:.2f}, recall {one.recall:.2f}; "
            f"right person in {one.gate:.0%} of scheduled appearances\n"
        )
        for gap, cosine, num in zip(again.gaps, again.similarity, again.num_pairs, strict=True):
            sys.stdout.write(f"  gap of {gap} shots: likeness {cosine:.2f} over {num} pairs\n")


def as_content(
    rows: Sequence[Json],
    mean: Evaluation | None,
    found: Mapping[str, Interval],
    episode: Sequence[AcrossShots],
    differences: Sequence[Difference],
) -> Json:
    """What evaluation.json holds; rows: one object a video, as ``video_row`` makes them."""
    from pipeline.judging.across_shots import episode_figures
    from pipeline.judging.stored import as_json, plain

    return {
        "schema": SCHEMA,
        "figures": {name: plain(dataclasses.asdict(one)) for name, one in found.items()},
        "videos": list(rows),
        "mean": None if mean is None else as_json(mean),
        "episode": {
            "figures": plain(episode_figures(episode)),
            "recognisers": [plain(dataclasses.asdict(one)) for one in episode],
        }
        if episode
        else None,
        "against": [{**plain(dataclasses.asdict(one)), "says": one.in_words()} for one in differences],
    }


def video_row(video: Path, key: str, evaluation: Evaluation) -> Json:
    """One video's object in evaluation.json."""
    from pipeline.judging.stored import as_json

    return {"video": str(video), "key": key, **as_json(evaluation)}


def write_content(output: Path, content: Json) -> None:
    """evaluation.json, compact: a thousand videos are some 20 MB."""
    write_atomic(
        output / "evaluation.json", json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
    )
