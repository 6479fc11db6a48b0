"""``castbank logs``: what a job has written, and, with -f, what it writes."""

from __future__ import annotations

import argparse
import sys
import time

from cluster.job_folder import JobFolder
from cluster.logs import follow
from cluster.spec import LIVE, JobError, JobSpec
from jobs.overview import states_of
from jobs.submission import registry

SUMMARY = """Show what a job's supervisor and its first process have written, or one process's log.

examples:
  castbank logs first-3f2a
  castbank logs -f first-3f2a
  castbank logs first-3f2a --rank 3"""


ASK_EVERY_S = 10.0  # a scheduler is not to be asked at each look


class Ended:
    """Whether a job has ended: as its folder says at once, or as its scheduler says now and then."""

    def __init__(self, place: JobFolder, spec: JobSpec) -> None:
        self._place, self._spec = place, spec
        self._asked_s = time.monotonic()

    def look(self) -> bool:
        """Look once; a scheduler that cannot be asked is no end."""
        outcome = self._place.outcome()
        if outcome is not None and outcome.state != "preempted":
            return True
        if time.monotonic() - self._asked_s < ASK_EVERY_S:
            return False
        self._asked_s = time.monotonic()
        return states_of({self._spec.id: self._spec})[self._spec.id].state not in (*LIVE, "unknown")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("job", metavar="JOB", help="id, its beginning, or the job's folder")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the job has ended")
    parser.add_argument("--rank", type=int, help="only this process; 0 is the first")


def run(args: argparse.Namespace) -> int:
    """Print the logs."""
    place = JobFolder(registry().find(args.job))
    spec = place.spec()
    if args.rank is not None and not 0 <= args.rank < spec.world:
        raise JobError(f"--rank: came {args.rank}; job {spec.id} has processes 0 to {spec.world - 1}")
    paths = [place.log, place.rank_log(0)] if args.rank is None else [place.rank_log(args.rank)]

    ended = Ended(place, spec).look if args.follow else lambda: True
    for line in follow(paths, ended):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    return 0
