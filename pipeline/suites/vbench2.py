"""VBench 2.0 (Zheng et al. 2025, arXiv 2503.21755): faithfulness in 18 dimensions.

Formats, of github.com/Vchitect/VBench, folder VBench-2.0: prompts are the folder ``prompts/prompt``
(``Dimension.txt``, one prompt a line), whose videos are ``<Dimension>/<first 180 characters>-<k>.mp4``, k from 0,
20 for Diversity and 3 for others (prompts/README.md); or ``vbench2/VBench2_full_info.json`` (a list with
``prompt_en`` and ``dimension``), whose videos lie in one folder, which their ``divide_video.py`` then sorts.
Results are ``*_eval_results.json``: ``{dimension: [score, [{video_path, video_results}]]}``, scores in 0..1, −1
where a video could not be judged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_prep.records import InputError
from pipeline.suites.suite import Suite, SuitePrompt, SuiteResults, checked, read_json

NAME_LENGTH = 180  # of a prompt, in a video's name
TIMES = {"Diversity": 20}
USUAL_TIMES = 3


def prompts(path: Path) -> list[SuitePrompt]:
    """Their folder prompts/prompt, one file of it, or VBench2_full_info.json."""
    if path.suffix == ".json":
        return checked(_of_info(path), path)
    found: list[SuitePrompt] = []
    for file in [path] if path.is_file() else sorted(path.glob("*.txt")):
        for prompt in dict.fromkeys(file.read_text(encoding="utf-8-sig").splitlines()):
            if prompt.strip():
                found += _takes(prompt.strip(), file.stem, f"{file.stem}/")
    return checked(found, path)


def results(path: Path) -> SuiteResults:
    """One *_eval_results.json, or a folder with one or more, of different dimensions."""
    files = [path] if path.is_file() else sorted(path.glob("*_eval_results.json"))
    figures: dict[str, float] = {}
    videos: dict[str, dict[str, float]] = {}
    for file in files:
        content = read_json(file)
        if not isinstance(content, dict):
            raise InputError(f"{file}: holds no {{dimension: [score, videos]}}; give VBench 2.0's results")
        for dimension, entry in content.items():
            if dimension in figures:
                raise InputError(f"{path}: {dimension} comes twice; give the results of one run")
            score, rows = _entry(file, dimension, entry)
            figures[dimension] = score
            for row in rows:
                if (value := _result(row)) is not None:
                    name = f"{dimension}/{Path(row['video_path']).stem}"
                    videos.setdefault(name, {})[dimension] = value
    if not figures:
        raise InputError(
            f"{path}: no *_eval_results.json; give the folder that VBench 2.0's evaluate.py wrote"
        )
    return SuiteResults("vbench2", figures, videos)


def _of_info(path: Path) -> list[SuitePrompt]:
    content = read_json(path)
    if not isinstance(content, list) or not all(
        isinstance(row, dict) and row.get("dimension") and "prompt_en" in row for row in content
    ):
        raise InputError(
            f"{path}: is no list of prompt_en and dimension; give vbench2/VBench2_full_info.json"
        )
    found: dict[str, SuitePrompt] = {}
    for row in content:  # a prompt comes once for each of its questions
        for one in _takes(str(row["prompt_en"]), str(row["dimension"][0]), ""):
            found.setdefault(one.output, one)
    return list(found.values())


def _takes(prompt: str, dimension: str, folder: str) -> list[SuitePrompt]:
    name = prompt[:NAME_LENGTH]
    if "/" in name:
        raise InputError(f"{dimension}: a video cannot be named {name!r}; take out the slash")
    times = TIMES.get(dimension, USUAL_TIMES)
    return [SuitePrompt(prompt, f"{folder}{name}-{k}.mp4", dimension) for k in range(times)]


def _entry(file: Path, dimension: str, entry: Any) -> tuple[float, list[dict[str, Any]]]:
    if not isinstance(entry, list) or not entry or not isinstance(entry[0], int | float):
        raise InputError(f"{file}: {dimension} is no [score, videos]; give VBench 2.0's results as written")
    rows = entry[1] if len(entry) > 1 and isinstance(entry[1], list) else []
    return float(entry[0]), [row for row in rows if isinstance(row, dict) and "video_path" in row]


def _result(row: dict[str, Any]) -> float | None:
    value = row.get("video_results")
    return float(value) if isinstance(value, int | float) and value != -1 else None


SUITE = Suite(
    "VBench 2.0: faithfulness in 18 dimensions",
    "its folder prompts/prompt, one file of it, or vbench2/VBench2_full_info.json",
    "*_eval_results.json, or the folder with it",
    prompts,
    results,
)
