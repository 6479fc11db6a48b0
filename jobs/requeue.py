"""``castbank requeue``: let a job that has ended go on, with the code and configuration it was submitted with."""

from __future__ import annotations

import argparse
import sys

from cluster.job_folder import JobFolder
from cluster.launchers import launcher
from cluster.spec import LIVE, JobError, JobSpec
from jobs.overview import states_of
from jobs.submission import kept_where_refused, registry

SUMMARY = """Hand a job that has ended to its scheduler again. It has the same code and configuration as before, its
failures are no longer counted, and a training goes on from its last checkpoint.

example: castbank requeue first-3f2a"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("job", metavar="JOB", help="id, its beginning, or the job's folder")


def _awaited(spec: JobSpec) -> list[str]:
    """Schedulers' ids of the live jobs that this one comes after; its supervisor looks after the others itself."""
    others = {folder: JobFolder(folder).spec() for folder in spec.after}
    states = states_of({other.id: other for other in others.values()})
    handed = [
        JobFolder(folder).submitted() for folder, other in others.items() if states[other.id].state in LIVE
    ]
    return [submitted.scheduler_id for submitted in handed if submitted]


def run(args: argparse.Namespace) -> int:
    """Submit the job as it is."""
    place = JobFolder(registry().find(args.job))
    spec = place.spec()
    state = states_of({spec.id: spec}, strict=True)[spec.id].state
    if state in LIVE:
        raise JobError(
            f"job {spec.id} is {state}; castbank cancel {spec.id} ends it, then it can be requeued"
        )
    if spec.code is not None and not spec.code.is_dir():
        raise JobError(f"job {spec.id}: its snapshot {spec.code} is gone; submit its job file again")
    with kept_where_refused(place):
        place.renew()
        place.forgive()
        scheduler_id = launcher(spec.place).submit(spec, _awaited(spec))
    place.write_submitted(spec.place, scheduler_id)
    sys.stdout.write(f"{spec.id}: in the queue again; castbank logs -f {spec.id}\n")
    return 0
