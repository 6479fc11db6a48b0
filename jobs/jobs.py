"""``castbank jobs``: every job that was submitted from here, in all places, in one table."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from cluster import heartbeats
from cluster.job_folder import JobFolder
from cluster.launchers import PLACES
from cluster.spec import LIVE, JobError, JobSpec, State
from jobs.overview import states_of
from jobs.submission import registry
from jobs.tables import aligned

SUMMARY = """List the jobs submitted from this machine, newest first: all that wait or run, the last that ended.

Jobs of the local queue that a reboot interrupted are taken up again by this command (or put it into your crontab:
@reboot castbank jobs).

examples:
  castbank jobs
  castbank jobs --on slurm --all"""
NUM_ENDED = 20


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    id: str
    place: str
    state: State
    step: int
    attempts: int
    age: str
    folder: str
    detail: str


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("--on", choices=PLACES, metavar="PLACE", help=f"only those of {', '.join(PLACES)}")
    parser.add_argument("--all", action="store_true", help=f"all that ended, not only the last {NUM_ENDED}")
    parser.add_argument("--json", action="store_true", help="one JSON object per line, for scripts")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    rows = rows_of(known_jobs(args.on))
    if not args.all:
        ended = [row for row in rows if row.state not in LIVE][:NUM_ENDED]
        rows = [row for row in rows if row.state in LIVE or row in ended]
    if args.json:
        for row in rows:
            sys.stdout.write(json.dumps(vars(row)) + "\n")
    elif rows:
        sys.stdout.write(table(rows))
    else:
        sys.stdout.write("no jobs; castbank submit JOB.yaml --on local starts one\n")
    return 0


def known_jobs(place: str | None) -> dict[str, JobSpec]:
    """Every submitted job whose folder still holds it, by id."""
    found = {}
    for job_id, folder in registry().all().items():
        with contextlib.suppress(JobError):  # deleted, unreadable, or of another version
            spec = JobFolder(folder).spec()
            if spec.id == job_id and place in (None, spec.place):  # else a later job has taken the folder
                found[job_id] = spec
    return found


def rows_of(jobs: dict[str, JobSpec]) -> list[Row]:
    """The table's rows, in the order of ``jobs``."""
    rows = []
    for job_id, status in states_of(jobs).items():
        spec = jobs[job_id]
        place = JobFolder(spec.folder)
        submitted = place.submitted()
        rows.append(
            Row(
                job_id,
                spec.place,
                status.state,
                heartbeats.last_step(place.heartbeats) if spec.ranks else 0,
                len(place.attempts()),
                span(time.time() - submitted.at_s) if submitted else "",
                _short(spec.folder),
                status.detail.splitlines()[0] if status.detail else "",
            )
        )
    return rows


def table(rows: list[Row]) -> str:
    """Aligned columns, the detail last and only as wide as it is."""
    head = ("JOB", "PLACE", "STATE", "STEP", "ATTEMPTS", "AGE", "FOLDER", "")
    lines = [head]
    for row in rows:
        step = str(row.step) if row.step else "-"
        lines.append((row.id, row.place, row.state, step, str(row.attempts), row.age, row.folder, row.detail))
    return aligned(lines)


def span(seconds: float) -> str:
    """A time for people: 42s, 13m, 5h07, 3d04h."""
    minutes, hours = int(seconds) // 60, int(seconds) // 3600
    if minutes < 1:
        return f"{int(seconds)}s"
    if hours < 1:
        return f"{minutes}m"
    return f"{hours}h{minutes % 60:02d}" if hours < 48 else f"{hours // 24}d{hours % 24:02d}h"


def _short(folder: Path) -> str:
    """Relative to here where it lies below."""
    here = Path.cwd()
    return str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)
