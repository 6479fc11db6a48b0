"""``castbank submit``: a job file to a scheduler, or, as a dry run, to the screen."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cluster.launchers import PLACES, launcher
from jobs.job_file import JobFile
from jobs.knobs import describe

SUMMARY = """Hand a job file to this machine's queue, Slurm, Ray or Kubernetes.

The job takes a copy of the code and its resolved configuration along: later edits change nothing for it. A chain
(steps) is submitted whole, each step after those it waits for. The same file serves every place."""

EXAMPLE = """castbank submit jobs/configs/job_train.yaml --on local
  castbank submit jobs/configs/job_chain.yaml --on slurm resources.nodes=2 slurm.partition=gpu
  castbank submit jobs/configs/job_train.yaml --on kubernetes --dry-run keys.num_steps=100"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("job_file", metavar="JOB.yaml", type=Path)
    parser.add_argument(
        "--on", choices=PLACES, required=True, metavar="PLACE", help=f"one of {', '.join(PLACES)}"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print exactly what would be sent; send nothing"
    )
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="merged over the job file"
    )
    parser.epilog = f"example:\n  {EXAMPLE}\n\nkeys of a job file:\n{describe(JobFile)}"


def run(args: argparse.Namespace) -> int:
    """Submit every job of the file."""
    from jobs.job_file import read
    from jobs.submission import prepare, submit

    prepared = prepare(read(args.job_file, args.overrides), args.on)
    if args.dry_run:
        for item in prepared:
            sys.stdout.write(launcher(args.on).render(item.spec).rstrip("\n") + "\n")
        return 0
    for spec, scheduler_id in submit(prepared):
        known = "" if scheduler_id == spec.id else f" ({args.on} {scheduler_id})"
        sys.stdout.write(f"{spec.id}{known}: {spec.folder}\n")
    last = prepared[-1].spec.id
    sys.stdout.write(f"next: castbank status {last}, castbank logs -f {last}\n")
    return 0
