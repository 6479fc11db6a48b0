"""T2V-CompBench (Sun et al. 2024, arXiv 2407.14505): which attribute, action or motion is whose.

Formats, of github.com/KaiyueSun98/T2V-CompBench: prompts are the folder ``prompts`` (one ``K_category.txt`` each,
one prompt a line) or ``meta_data`` (``category.json``, a list with ``prompt``); videos are
``<category>/0001.mp4``, in the order of the list (README, "Prepare Evaluation Videos"). Results are CSV files
``<model>_<category>_score.csv`` whose last column is each video's raw score and whose last line is ``score: ,<the
category's>``, in 0..1.
"""

from __future__ import annotations

import csv
from pathlib import Path

from data_prep.records import InputError
from pipeline.suites.suite import Suite, SuitePrompt, SuiteResults, checked, read_json

FOLDERS = {  # how a category's list is named: the folder of videos that its evaluator reads
    "consistent_attr": "consistent_attr",
    "consistent_attribute_binding": "consistent_attr",
    "dynamic_attr": "dynamic_attr",
    "dynamic_attribute_binding": "dynamic_attr",
    "spatial_relationship": "spatial_relationships",
    "spatial_relationships": "spatial_relationships",
    "motion_binding": "motion_binding",
    "action_binding": "action_binding",
    "interaction": "interaction",
    "object_interactions": "interaction",
    "numeracy": "generative_numeracy",
    "generative_numeracy": "generative_numeracy",
}
RESULTS = {  # end of a result's name: the category
    "consistent_attr_score": "consistent_attr",
    "dynamic_attr_score": "dynamic_attr",
    "action_binding_score": "action_binding",
    "object_interactions_score": "interaction",
    "spatial_score": "spatial_relationships",
    "3dvideo": "spatial_relationships",  # where the evaluator puts the score of 2D and 3D
    "motion_score": "motion_binding",
    "numeracy_video": "generative_numeracy",
}


def prompts(path: Path) -> list[SuitePrompt]:
    """Their folder ``prompts`` or ``meta_data``, or one file of it."""
    files = [path] if path.is_file() else sorted([*path.glob("*.txt"), *path.glob("*.json")])
    found = []
    for file in files:
        category = file.stem.lstrip("0123456789_")
        if category not in FOLDERS:
            raise InputError(f"{file}: {category!r} is no category of T2V-CompBench; there are {_names()}")
        for number, prompt in enumerate(_lines(file), 1):
            found.append(SuitePrompt(prompt, f"{FOLDERS[category]}/{number:04d}.mp4", FOLDERS[category]))
    return checked(found, path)


def results(path: Path) -> SuiteResults:
    """One CSV file, or a folder with some of them at any depth."""
    files = [path] if path.is_file() else sorted(path.rglob("*.csv"))
    figures: dict[str, float] = {}
    videos: dict[str, dict[str, float]] = {}
    for file in files:
        category = next((name for end, name in RESULTS.items() if file.stem.endswith(end)), None)
        if category is None:
            continue  # frame scores and halves, which the evaluator puts together itself
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = [row for row in csv.reader(stream) if row]
        if len(rows) < 2 or not rows[-1][0].strip().lower().startswith("score"):
            raise InputError(
                f"{file}: its last line is no score; let T2V-CompBench's evaluator finish this category"
            )
        figures[category] = _number(file, rows[-1][1])
        for row in rows[1:-1]:
            if (raw := _maybe(row[-1])) is not None:  # "bad reply" of the model that was asked
                videos[f"{category}/{Path(row[0]).stem}"] = {f"{category}_raw": raw}
    if not figures:
        raise InputError(f"{path}: no result of T2V-CompBench; give the folder of <model>_*_score.csv files")
    return SuiteResults("compbench", figures, videos)


def _lines(file: Path) -> list[str]:
    if file.suffix == ".txt":
        return [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    content = read_json(file)
    if not isinstance(content, list) or not all(isinstance(row, dict) and "prompt" in row for row in content):
        raise InputError(f"{file}: is no list with prompts; give T2V-CompBench's meta_data as it is")
    return [str(row["prompt"]) for row in content]


def _names() -> str:
    return ", ".join(sorted(set(FOLDERS.values())))


def _maybe(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _number(file: Path, text: str) -> float:
    value = _maybe(text)
    if value is None:
        raise InputError(f"{file}: the score in its last line is {text!r}, no number")
    return value


SUITE = Suite(
    "T2V-CompBench: which attribute, action or motion is whose",
    "its folder prompts or meta_data, or one file of it",
    "the folder of <model>_*_score.csv files",
    prompts,
    results,
)
