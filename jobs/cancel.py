"""``castbank cancel``: ask jobs to checkpoint and end."""

from __future__ import annotations

import argparse
import sys

from cluster.job_folder import JobFolder
from cluster.spec import LIVE, JobError
from jobs.overview import states_of
from jobs.submission import cancel, registry

SUMMARY = """Ask jobs to end. A training writes a checkpoint first, within stopping.grace_s; castbank requeue
goes on from it.

example: castbank cancel first-3f2a"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("jobs", metavar="JOB", nargs="+", help="id, its beginning, or the job's folder")


def run(args: argparse.Namespace) -> int:
    """Cancel every job; one that has ended is said to have."""
    places = [JobFolder(registry().find(asked)) for asked in args.jobs]
    specs = {spec.id: spec for spec in (place.spec() for place in places)}
    for job_id, status in states_of(specs).items():
        spec, submitted = specs[job_id], JobFolder(specs[job_id].folder).submitted()
        if submitted is None:
            raise JobError(f"job {job_id} was never handed over; there is nothing to cancel")
        if JobFolder(spec.folder).cancelled.exists():
            sys.stdout.write(f"{job_id}: is being cancelled already ({status.state})\n")
        elif status.state in LIVE:
            cancel(spec, submitted.scheduler_id)
            sys.stdout.write(f"{job_id}: asked to end; castbank status {job_id} tells when it has\n")
        else:
            sys.stdout.write(f"{job_id}: {status.state} already\n")
    return 0
