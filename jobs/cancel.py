"""``castbank cancel``: ask jobs to checkpoint and end."""

from __future__ import annotations

import argparse
import sys

from cluster.job_folder import JobFolder
from cluster.spec import EXIT_INPUT, JobError
from jobs.overview import states_of
from jobs.submission import cancel, registry

SUMMARY = """Ask jobs to end. A training writes a checkpoint first, within stopping.grace_s; castbank requeue
goes on from it.

example: castbank cancel first-3f2a"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("jobs", metavar="JOB", nargs="+", help="id, its beginning, or the job's folder")


def run(args: argparse.Namespace) -> int:
    """Cancel every job, whatever happens to the others; one that has ended is said to have."""
    code = 0
    for asked in args.jobs:
        try:
            sys.stdout.write(f"{_cancelled(JobFolder(registry().find(asked)))}\n")
        except JobError as error:
            sys.stderr.write(f"castbank cancel: {error}\n")
            code = EXIT_INPUT
    return code


def _cancelled(place: JobFolder) -> str:
    """Ask one job to end; what to tell its owner. One whose scheduler does not answer is asked all the same: the
    mark in its folder is enough for a supervisor that sees it."""
    spec, submitted = place.spec(), place.submitted()
    if submitted is None:
        raise JobError(f"job {spec.id} was never handed over; there is nothing to cancel")
    state = states_of({spec.id: spec})[spec.id].state
    if state in ("succeeded", "failed", "cancelled"):
        return f"{spec.id}: {state} already"
    again = " again" if place.cancelled.exists() else ""
    cancel(spec, submitted.scheduler_id)
    return f"{spec.id}: asked{again} to end; castbank status {spec.id} tells when it has"
