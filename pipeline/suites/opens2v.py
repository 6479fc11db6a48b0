"""OpenS2V-Eval (Yuan et al. 2025, arXiv 2505.20292): subjects given as pictures.

Formats, of github.com/PKU-YuanGroup/OpenS2V-Nexus: prompts are ``Human-Domain_Eval.json``,
``Open-Domain_Eval.json`` or ``Single-Domain_Eval.json`` of the data set BestWishYsh/OpenS2V-Eval, ``{id: {prompt,
img_paths, class_label}}`` with pictures relative to the file (eval/README.md); videos are ``<id>.mp4`` in one
folder. Results are the files of ``eval/get_*.py``, each ``{id: {score: number}}``, NaturalScore one file per
asking, ``{id: "1".."5"}``. Their leader board rescales some of them and weighs all into one total; here they are
as written.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from data_prep.records import InputError
from pipeline.suites.suite import Suite, SuitePrompt, SuiteResults, checked, means, read_json

NAMES = {  # of a score in their files: what tables call it
    "cur_score": "FaceSim-Cur",
    "arc_score": "FaceSim-Arc",
    "gme_score": "GmeScore",
    "retrieval_score": "NexusScore",
    "aes_score": "Aesthetics",
    "motion_fb": "Motion-FB",
    "motion_lk": "Motion-LK",
}


def prompts(path: Path) -> list[SuitePrompt]:
    """One of the three lists."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no {{id: {{prompt, img_paths}}}}; give Human-Domain_Eval.json, say")
    found = []
    for name, entry in content.items():
        if not isinstance(entry, dict) or not {"prompt", "img_paths"} <= set(entry):
            raise InputError(f"{path}: {name!r} has no prompt and img_paths; download the list again")
        pictures = {f"{name}-{k}": (str(one),) for k, one in enumerate(entry["img_paths"], 1)}
        found.append(
            SuitePrompt(
                str(entry["prompt"]), f"{name}.mp4", name.rsplit("_", 1)[0], tuple(pictures), pictures
            )
        )
    return checked(found, path)


def results(path: Path) -> SuiteResults:
    """A folder of their score files."""
    files = sorted(path.glob("*.json")) if path.is_dir() else []
    asked: dict[str, dict[str, list[float]]] = {}
    for file in files:
        for name, entry in read_json(file).items():
            for score, value in _scores(file, entry).items():
                asked.setdefault(name, {}).setdefault(score, []).append(value)
    if not asked:
        raise InputError(f"{path}: no score in it; give the folder that eval/get_*.py wrote their JSON into")
    videos = {
        name: {score: sum(values) / len(values) for score, values in scores.items()}
        for name, scores in asked.items()
    }
    return SuiteResults("opens2v", means(videos), videos)


def _scores(file: Path, entry: Any) -> dict[str, float]:
    """Finite numbers of one video in one file; NaturalScore's are texts, and have no name."""
    if isinstance(entry, dict):
        named: dict[str, Any] = {NAMES.get(str(name), str(name)): value for name, value in entry.items()}
    else:
        named = {"NaturalScore" if file.stem.startswith("naturalscore") else file.stem: entry}
    found = {}
    for name, value in named.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue  # a refusal of the model that was asked
        if math.isfinite(number):
            found[name] = number
    return found


SUITE = Suite(
    "OpenS2V-Eval: subjects given as pictures",
    "Human-Domain_Eval.json, Open-Domain_Eval.json or Single-Domain_Eval.json",
    "the folder of facesim.json, gmescore.json, ...",
    prompts,
    results,
)
