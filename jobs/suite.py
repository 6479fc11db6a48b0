"""``castbank suite``: a published suite's prompts for ``castbank generate``, its results as figures."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.atomic import write_atomic
from data_prep.records import InputError
from jobs.outputs import check_file
from jobs.tables import aligned

if TYPE_CHECKING:
    from pipeline.suites.suite import SuiteResults

SUMMARY = """Published suites: opens2v, compbench, vbench2, entitybench. PROMPTS and RESULTS are their own files, as
their repositories publish them and their evaluators write them; castbank suite list says which.

plan writes one line a video, {prompt, cast, seed, output} (and references, where a suite gives pictures), that
castbank generate takes; outputs lie and are named as the suite's evaluator looks for them. Run that evaluator in
its own environment, then collect what it wrote, or give it to castbank evaluate --suite.

examples:
  castbank suite plan opens2v OpenS2V-Eval/Human-Domain_Eval.json --videos made --output prompts.jsonl
  castbank suite plan vbench2 VBench-2.0/prompts/prompt --videos made --cast anna --output prompts.jsonl
  castbank suite collect vbench2 evaluation_results --output vbench2.json"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``castbank suite``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="the suites, and which files of theirs are read")
    planned = actions.add_parser("plan", help="their prompts, one line a video")
    planned.add_argument("suite", metavar="SUITE")
    planned.add_argument("prompts", type=Path, metavar="PROMPTS")
    planned.add_argument("--videos", type=Path, required=True, metavar="FOLDER", help="that they will lie in")
    planned.add_argument("--output", type=Path, required=True, metavar="JSONL")
    planned.add_argument(
        "--cast", default="", help="names, comma between: who plays where the suite brings nobody"
    )
    planned.add_argument("--seed", type=int, default=0, help="of the first video, each next has the next (0)")
    planned.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="TOPIC",
        help="a dimension or category; may be repeated",
    )
    collected = actions.add_parser("collect", help="their evaluator's figures, as a table and as JSON")
    collected.add_argument("suite", metavar="SUITE")
    collected.add_argument("results", type=Path, metavar="RESULTS")
    collected.add_argument("--output", type=Path, metavar="JSON")


def run(args: argparse.Namespace) -> int:
    """Do one action; raises InputError on what a person can mend."""
    {"list": _list, "plan": _plan, "collect": _collect}[args.action](args)
    return 0


def read_results(given: str) -> SuiteResults:
    """``SUITE:RESULTS``, as castbank evaluate takes it."""
    from pipeline.suites.registry import known_suite

    name, _, where = given.partition(":")
    if not where:
        raise InputError(f"--suite: came {given!r}; give SUITE:RESULTS, such as vbench2:evaluation_results")
    return known_suite(name).results(_there("--suite", Path(where)))


def _list(_args: argparse.Namespace) -> None:
    from pipeline.suites.registry import SUITES

    rows = [(name, suite.says, suite.reads, suite.writes) for name, suite in SUITES.items()]
    sys.stdout.write(aligned([("SUITE", "ASKS", "PROMPTS", "RESULTS"), *rows]))


def _plan(args: argparse.Namespace) -> None:
    from pipeline.suites.registry import known_suite
    from pipeline.suites.suite import generation_rows

    check_file("--output", args.output, ".jsonl")
    path = _there("PROMPTS", args.prompts)
    prompts = known_suite(args.suite).prompts(path)
    topics = sorted({one.topic for one in prompts})
    if unknown := sorted(set(args.only) - set(topics)):
        raise InputError(f"--only: came {', '.join(unknown)}; {path} has {', '.join(topics)}")
    chosen = [one for one in prompts if not args.only or one.topic in args.only]
    cast = [name.strip() for name in args.cast.split(",") if name.strip()]
    pictures = path if path.is_dir() else path.parent
    rows = generation_rows(chosen, args.videos, cast, args.seed, pictures)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(args.output, lines.encode())
    named = sorted({name for row in rows if "references" not in row for name in row["cast"]})
    say = f"{args.output}: {len(rows)} videos of {len({one.topic for one in chosen})} topics"
    sys.stdout.write(f"{say}; cast from a bank: {', '.join(named) or 'nobody'}\n")


def _collect(args: argparse.Namespace) -> None:
    if args.output is not None:
        check_file("--output", args.output, ".json")
    found = read_results(f"{args.suite}:{args.results}")
    rows = [(name, f"{value:.4f}") for name, value in sorted(found.figures.items())]
    sys.stdout.write(aligned([(f"{found.suite}, {len(found.videos)} judged", "SCORE"), *rows]))
    if args.output is not None:
        content = {"suite": found.suite, "figures": found.figures, "videos": found.videos}
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(args.output, json.dumps(content, indent=1, ensure_ascii=False).encode())


def _there(name: str, path: Path) -> Path:
    if not path.exists():
        raise InputError(
            f"{name}: {str(path)!r}: no such file or folder; castbank suite list says what to give"
        )
    return path
