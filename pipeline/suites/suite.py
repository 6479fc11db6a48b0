"""What a suite is to us: prompts with the place of each video, and figures that its own evaluator wrote.

Each suite is one file of this folder, which says whose formats it reads and where they are defined. No prompt list
comes with castbank; theirs are read from a copy of their repository or data set.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data_prep.records import InputError, Json


@dataclass(frozen=True)
class SuitePrompt:
    """One video to make. output: its path below the folder of videos, as the suite's evaluator looks for it; topic:
    the suite's dimension or category; cast: characters that it names itself; references: their pictures, by name,
    relative to the folder of the prompt list."""

    prompt: str
    output: str
    topic: str
    cast: tuple[str, ...] = ()
    references: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class SuiteResults:
    """What its evaluator said. figures: of all videos, by name; videos: by name of the video without its ending (or
    of the episode) the figures of one; where the evaluator could not judge, there is no figure."""

    suite: str
    figures: Mapping[str, float]
    videos: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Suite:
    """prompts: of a file or folder as published; results: of the file or folder that its evaluator wrote; says: one
    line for --help; reads, writes: what to give for prompts and for results."""

    says: str
    reads: str
    writes: str
    prompts: Callable[[Path], list[SuitePrompt]]
    results: Callable[[Path], SuiteResults]


def generation_rows(
    prompts: Sequence[SuitePrompt], videos: Path, cast: Sequence[str], seed: int, pictures: Path
) -> list[Json]:
    """Lines for ``castbank generate``: prompt, cast, seed, output, and references where the suite brings some.

    videos: the folder that outputs lie in; cast: of the prompts that bring nobody; seed: of the first, each next
    one has the next; pictures: the folder that references are relative to.
    """
    rows: list[Json] = []
    for at, one in enumerate(prompts):
        row: Json = {
            "prompt": one.prompt,
            "cast": list(one.cast or cast),
            "seed": seed + at,
            "output": str(videos / one.output),
        }
        if one.references:
            row["references"] = {
                name: [str(pictures / path) for path in paths] for name, paths in one.references.items()
            }
        rows.append(row)
    return rows


def checked(prompts: list[SuitePrompt], where: Path) -> list[SuitePrompt]:
    """The same; raises InputError where there is none, or two videos would have one name."""
    if not prompts:
        raise InputError(f"{where}: no prompt in it; give the suite's list as it is published")
    seen: set[str] = set()
    for one in prompts:
        if Path(one.output).is_absolute() or ".." in Path(one.output).parts:
            raise InputError(f"{where}: {one.output!r} leaves the folder of videos; rename that entry")
        if one.output in seen:
            raise InputError(f"{where}: two prompts would both be {one.output!r}; remove one of them")
        seen.add(one.output)
    return [replace(one, prompt=one.prompt.strip()) for one in prompts]


def read_json(path: Path) -> Any:
    """A JSON file; raises InputError where it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the suite's file as it is published") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: is no JSON ({error}); download it again") from error


def means(videos: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Of each figure its mean over the videos that have it."""
    values: dict[str, list[float]] = {}
    for figures in videos.values():
        for name, value in figures.items():
            values.setdefault(name, []).append(value)
    return {name: sum(some) / len(some) for name, some in sorted(values.items())}
