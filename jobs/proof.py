"""``castbank proof``: does the bank put the right face in the right place? A tiny model, trained from nothing."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import config as configs
from jobs import knobs
from jobs.demo import StepError, Steps
from jobs.outputs import check_folder
from jobs.proving.config import ProofConfig, check
from jobs.proving.rows import ROWS, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobs.proving.results import RowResult
    from jobs.proving.training import Places

SUMMARY = f"""Prove on this machine who is who: a tiny video model with and without its parts, judged by faces.

Composes clips of known people in pairs and threes, prepares them, trains a base without identity, then every row
from that base under equal steps and seeds, and asks each for casts, places and prompts that training never showed.
A recogniser that took no part in training decides. Writes proof.json and proof.html into --output; all that is done
stays done, so that a proof that was ended goes on with the same command.

rows:
{chr(10).join(f"  {row.name:16}{row.title}{' (only by name)' if row.dear else ''}" for row in ROWS)}"""

EXAMPLE = "castbank proof --output proof rows=[full,none] steps=100"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument(
        "--output", default=Path("proof"), type=Path, help="folder of the results (default: proof)"
    )
    knobs.add_arguments(parser, ProofConfig, EXAMPLE)


def run(args: argparse.Namespace) -> int:
    """Everything that is not done yet; 0, or the exit code of the step that failed."""
    config = configs.load(ProofConfig, args.config, args.overrides)
    check(config)
    check_folder("--output", args.output)
    try:
        return _prove(config, args.output.resolve())
    except StepError as failed:
        return failed.code


def _prove(config: ProofConfig, output: Path) -> int:
    from jobs.proving.training import Places

    places, started = Places(output), time.monotonic()
    steps = Steps(output / "jobs", "proof")
    names = _prepared(config, places, steps)
    work = Work(config, places, steps, names)
    work.check()
    work.base()
    results: list[RowResult] = []
    chosen = config.chosen()
    for number, row in enumerate(chosen, 1):
        _say(f"\nrow {number} of {len(chosen)}: {row.name}, {row.title}{work.left(chosen[number - 1 :])}")
        results.append(work.row(row))
        _write(config, results, places, names)
    spent = (time.monotonic() - started) / 60
    _say(f"\nDone in {spent:.1f} min: {places.output / 'proof.html'}")
    for line in _lines(results, names):
        _say(line)
    return 0


class Work:
    """The trainings and drawings of one proof, each done once."""

    def __init__(self, config: ProofConfig, places: Places, steps: Steps, names: dict[str, str]) -> None:
        self.config, self.places, self.steps, self.names = config, places, steps, names

    def check(self) -> None:
        """Raise InputError now for a row that cannot be trained."""
        from jobs.proving.training import row_config

        for row in self.config.chosen():
            if row.trains:
                row_config(row, self.config, self.places, self.names)

    def base(self) -> None:
        """What every row starts from, and the cache that they read."""
        from jobs.proving.training import BASE, base_config, write

        path = self.places.config(BASE)
        write(base_config(self.config, self.places, self.names), path)
        if not (self.places.run(BASE) / "export").is_dir():
            self.steps("cache", "cache", "--config", path)
            self.steps("base", "train", "--config", path)

    def row(self, row: Row) -> RowResult:
        """Train and draw a row, or read what it gave."""
        from jobs.proving.results import draw_row, read_row

        if row.trains:
            self._train(row)
        found = read_row(row, self.config, self.places)
        return found or draw_row(row, self.config, self.places, self.names)

    def _train(self, row: Row) -> None:
        from jobs.proving.training import BASE, graft, row_config, write

        config, path = row_config(row, self.config, self.places, self.names), self.places.config(row.name)
        write(config, path)
        if not row.of:
            graft(self.places.run(BASE) / "export", config, self.places.grafted(row.name))
        if not (self.places.run(row.name) / "export").is_dir():
            self.steps(row.name, "train", "--config", path)

    def left(self, rows: list[Row]) -> str:
        """How long the rest will take, by what was measured so far; empty before anything was."""
        from jobs.proving.results import minutes_left

        minutes = minutes_left(rows, self.config, self.places)
        return "" if minutes is None else f" (about {minutes:.0f} min left)"


def _prepared(config: ProofConfig, places: Places, steps: Steps) -> dict[str, str]:
    """Footage and shards; returns character id to name."""
    from data_prep.faces import packs
    from jobs.progress import ProgressBar
    from jobs.proving import footage
    from jobs.proving.training import CONFIGS

    steps("faces", "faces", "install", "all")
    with ProgressBar() as progress:
        footage.make(places.footage, packs.home(), config.repeats, progress)
    if not (places.shards / "manifest.json").is_file():
        table, clips = places.footage / "table.csv", f"clips={places.footage / 'clips'}"
        how = ("--config", CONFIGS / "prepare_proof.yaml", "--output", places.shards, "tracking.kind=none")
        steps("prepare", "prepare", table, *how, clips)
    return footage.names_of(places.footage, places.shards)


def _write(config: ProofConfig, results: list[RowResult], places: Places, names: dict[str, str]) -> None:
    """The tables of the rows that there are so far."""
    from data_prep.atomic import write_atomic
    from jobs.proving.page import page
    from jobs.proving.results import as_json

    everybody = sorted(names.values())
    write_atomic(places.output / "proof.json", as_json(config, results, everybody).encode())
    write_atomic(places.output / "proof.html", page(config, results, everybody, places).encode())


def _lines(results: list[RowResult], names: dict[str, str]) -> Iterator[str]:
    """The goals, and one line per row."""
    from jobs.proving.results import goals, summary

    everybody = sorted(names.values())
    yield from summary(results, everybody)
    yield from goals(results, everybody)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
