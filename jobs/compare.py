"""``castbank compare``: several evaluations on one page, and who is better in which figure."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from data_prep.atomic import write_atomic
from data_prep.records import InputError, Json
from jobs.evaluate_results import read_evaluation
from jobs.outputs import check_file
from jobs.tables import aligned

SUMMARY = """Evaluations of several runs or strategies side by side: means with intervals, each against the first
over the prompts and seeds that both have. EVALUATION is a folder that castbank evaluate wrote; NAME=FOLDER
names it.

examples:
  castbank compare judged-a judged-b
  castbank compare none=judged/none bank=judged/bank anchored=judged/anchored --output strategies.html"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``castbank compare``."""
    parser.add_argument("evaluations", nargs="+", metavar="EVALUATION", help="the first is compared with")
    parser.add_argument("--output", type=Path, default=Path("comparison.html"), metavar="HTML")


def run(args: argparse.Namespace) -> int:
    """Write the page, and say where a difference is shown."""
    from pipeline.judging.pages.comparison import comparison_page, differences, strips_beside

    check_file("--output", args.output, ".html")
    folders = _named(args.evaluations)
    if len(folders) < 2:
        raise InputError("EVALUATION: one came; give two or more")
    runs = {name: read_evaluation(folder) for name, folder in folders.items()}
    _check_pairs(runs)
    strips = {name: strips_beside(runs[name], folder, args.output) for name, folder in folders.items()}
    html = comparison_page(runs, strips, "castbank comparison")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(args.output, html.encode())
    first, *others = runs
    for name in others:
        shown = [d for d in differences(runs[first], runs[name]).values() if d.verdict in ("better", "worse")]
        rows = [(d.name, d.verdict, f"{d.difference.mean:+.3f}", f"{d.difference.num} pairs") for d in shown]
        sys.stdout.write(aligned([(f"{name} against {first}", "IS", "BY", ""), *rows]))
        if not rows:
            sys.stdout.write("  no difference is shown\n")
    sys.stdout.write(f"{args.output}; open it in a browser\n")
    return 0


def _named(given: list[str]) -> dict[str, Path]:
    """Folders by name: NAME of NAME=FOLDER, else the folder's own."""
    found: dict[str, Path] = {}
    for one in given:
        name, sign, folder = one.partition("=")
        path = Path(folder if sign else one)
        name = name if sign else path.resolve().name
        if not name or name in found:
            raise InputError(f"EVALUATION: {one!r}: {name!r} comes twice; call it otherwise with NAME=FOLDER")
        found[name] = path
    return found


def _check_pairs(runs: dict[str, Json]) -> None:
    """Raises InputError where a run has no video in common with the first."""
    first, *others = runs
    keys = {row["key"] for row in runs[first]["videos"]}
    for name in others:
        if not keys & {row["key"] for row in runs[name]["videos"]}:
            raise InputError(
                f"EVALUATION: {name} has no video of the same cast, prompt and seed (or name) as {first}; evaluate "
                "what was generated for the same prompts"
            )
