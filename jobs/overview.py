"""What became of submitted jobs: asks each place once, and joins its answer with what the jobs themselves noted."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.job_folder import JobFolder
from cluster.launchers import launcher
from cluster.outcomes import combined
from cluster.spec import JobError, JobSpec, Status


def states_of(jobs: Mapping[str, JobSpec], *, strict: bool = False) -> dict[str, Status]:
    """How jobs stand, by castbank's id; ``unknown`` with the reason where a scheduler cannot be asked.

    Raises:
        JobError: a scheduler cannot be asked, where ``strict``: what may run must not be taken for what does not.
    """
    found: dict[str, Status] = {}
    asked: dict[tuple[str, str], dict[str, str]] = {}  # place and its address, to scheduler's id: ours
    for job_id, spec in jobs.items():
        place = JobFolder(spec.folder)
        submitted, outcome = place.submitted(), place.outcome()
        if outcome is not None and outcome.state != "preempted":
            found[job_id] = Status(outcome.state, outcome.reason)
        elif submitted is None:
            found[job_id] = Status("unknown", "was never handed over")
        else:
            asked.setdefault((spec.place, _door(spec)), {})[submitted.scheduler_id] = job_id
    for (_, _), ids in asked.items():
        specs = {scheduler_id: jobs[job_id] for scheduler_id, job_id in ids.items()}
        found |= _ask(specs, ids, strict)
    return {job_id: found[job_id] for job_id in jobs}


def _ask(specs: Mapping[str, JobSpec], ids: Mapping[str, str], strict: bool) -> dict[str, Status]:
    first = next(iter(specs.values()))
    try:
        answers = launcher(first.place).states(specs)
    except JobError as error:
        if strict:
            raise
        return {job_id: Status("unknown", str(error)) for job_id in ids.values()}
    gone = Status("unknown", f"{first.place} does not know it any more")
    return {
        ids[scheduler_id]: combined(JobFolder(spec.folder).outcome(), answers.get(scheduler_id, gone))
        for scheduler_id, spec in specs.items()
    }


def _door(spec: JobSpec) -> str:
    """Which scheduler of its kind a job went to."""
    return {
        "ray": spec.ray.address,
        "kubernetes": f"{spec.kubernetes.context}/{spec.kubernetes.namespace}",
    }.get(spec.place, "")
