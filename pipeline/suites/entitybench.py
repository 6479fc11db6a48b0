"""EntityBench (He et al. 2026, arXiv 2605.15199): a cast that comes back over the shots of an episode.

Formats, of github.com/Catherine-R-He/EntityBench: prompts are ``data/scripts/<episode>.json`` (``scenes`` with
``scene_num`` and ``video_prompts``, ``entity_schedule`` by ``"scene:shot"``); videos are
``<episode>/<scene>_<shot>.mp4``, both three digits from 001 (README, "Run"). Results are the ``<episode>.json``
that ``eval/evaluate_benchmark.py`` writes: ``metrics`` and ``vbench_means``, each ``{name: {value, n_evaluated,
...}}``, null where nothing could be judged, which is left out and never a zero.

Here each shot is a prompt by itself; ``castbank generate`` draws an episode as one story, with its memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_prep.records import InputError
from pipeline.suites.suite import Suite, SuitePrompt, SuiteResults, checked, means, read_json


def prompts(path: Path) -> list[SuitePrompt]:
    """One episode, or the folder of all."""
    files = [path] if path.is_file() else sorted(path.glob("*.json"))
    return checked([shot for file in files for shot in _shots(file)], path)


def results(path: Path) -> SuiteResults:
    """The folder that its evaluator wrote, or one episode's file."""
    files = [path] if path.is_file() else sorted(path.glob("*.json"))
    episodes: dict[str, dict[str, float]] = {}
    for file in files:
        content = read_json(file)
        if (
            isinstance(content, dict) and "episode_id" in content
        ):  # not the manifest nor the report beside them
            episodes[str(content["episode_id"])] = _figures(content)
    if not episodes:
        raise InputError(f"{path}: no episode's result; give the --out_dir of evaluate_benchmark.py")
    return SuiteResults("entitybench", means(episodes), episodes)


def _shots(file: Path) -> list[SuitePrompt]:
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("scenes"), list):
        raise InputError(f"{file}: has no scenes; give an episode of EntityBench's data/scripts")
    schedule = content.get("entity_schedule", {})
    found = []
    for scene in content["scenes"]:
        number = int(scene["scene_num"])
        for shot, prompt in enumerate(scene["video_prompts"], 1):
            cast = tuple(schedule.get(f"{number}:{shot}", {}).get("characters", ()))
            found.append(
                SuitePrompt(str(prompt), f"{file.stem}/{number:03d}_{shot:03d}.mp4", file.stem, cast)
            )
    return found


def _figures(content: dict[str, Any]) -> dict[str, float]:
    found = {}
    for prefix, key in (("", "metrics"), ("vbench_", "vbench_means")):
        for name, entry in content.get(key, {}).items():
            value = entry.get("value") if isinstance(entry, dict) else entry
            if isinstance(value, int | float):
                found[prefix + name] = float(value)
    return found


SUITE = Suite(
    "EntityBench: a cast that comes back over the shots of an episode",
    "data/scripts, or one episode of it",
    "the --out_dir of eval/evaluate_benchmark.py",
    prompts,
    results,
)
