"""What containers run: ``python -m cluster.kubernetes.pod run|wait|alive|stop FOLDER``.

    run     the job, or this pod's share of it; the pod's own process
    wait    until the jobs that this one comes after have succeeded; an init container
    alive   whether this pod's ranks have been heard of within hang_s; a probe
    stop    ask the job to stop and wait until it has; before a Ray head goes

``run`` exits with 0 when all is done, with 2 or 3 for bad input, with 70 when the job has failed for good, with 75
when it goes on in a new pod that nobody is to blame for, and with 1 where a failure is tried again in a new pod.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cluster import array_part, heartbeats
from cluster.array_part import part_folder
from cluster.job_folder import JobFolder
from cluster.kubernetes.children import mark
from cluster.kubernetes.echo import Echo
from cluster.kubernetes.node import Node
from cluster.kubernetes.objects import EXIT_FINAL, EXIT_RETRY_PYTORCH
from cluster.kubernetes.shape import kind_of, mode_of
from cluster.outcomes import still_missing
from cluster.spec import EXIT_EMPTY, EXIT_INPUT, EXIT_REQUEUE, JobError
from cluster.supervisor import Supervisor

POLL_S = 2.0


def run(folder: Path) -> int:
    """Run this pod's share of the job, with what it writes copied to the container's own output."""
    place = JobFolder(folder)
    spec, index = place.spec(), pod_index(os.environ)
    ended = _ended(place)
    if ended is not None:
        return ended
    mode, local = mode_of(spec), spec.resources.processes_per_node if spec.ranks else 1
    own = place.logs / (f"part-{index + 1}.log" if mode == "part" else f"pod-{index}.log")
    log = place.log if mode != "part" and index == 0 else own
    with Echo(log, [place.rank_log(index * local + rank) for rank in range(local)]):
        if mode == "gang":
            code = Node(folder, index).run()
        elif mode == "part":
            code = _final(JobFolder(part_folder(folder, index + 1)), array_part.run(folder, index + 1))
        else:
            place.stop.unlink(missing_ok=True)  # that was for the pod before this one
            code = _final(place, Supervisor(folder).run())
    again = code in (1, EXIT_REQUEUE) and kind_of(spec) == "pytorchjob"
    return EXIT_RETRY_PYTORCH if again else code


def wait(folder: Path) -> int:
    """Until every job of ``spec.after`` has succeeded; 2 where one never will."""
    place = JobFolder(folder)
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    try:
        while still_missing(place.spec().after):
            if asked:
                return EXIT_REQUEUE
            time.sleep(POLL_S)
    except JobError as error:
        place.write_outcome("failed", EXIT_INPUT, str(error))
        sys.stderr.write(f"{error}\n")
        return EXIT_INPUT
    return 0


def alive(folder: Path) -> int:
    """Whether every rank of this pod has moved within hang_s; what no rank has begun cannot hang."""
    place = JobFolder(folder)
    spec, index = place.spec(), pod_index(os.environ)
    if not spec.ranks or not mark().exists():
        return 0
    started_s, now_s = mark().stat().st_mtime, time.time()
    beats = {beat.rank: beat for beat in heartbeats.read(place.heartbeats)}
    local = spec.resources.processes_per_node
    first = index * local if mode_of(spec) == "gang" else 0
    for rank in range(first, first + local):
        beat = beats.get(rank)
        if beat is not None and beat.phase == heartbeats.DONE:
            continue
        last_s = max(started_s, min(beat.alive_at_s, beat.step_at_s)) if beat else started_s
        if now_s - last_s > spec.stopping.hang_s:
            sys.stderr.write(f"rank {rank} has not moved for {now_s - last_s:.0f} s\n")
            return 1
    return 0


def stop(folder: Path) -> int:
    """Ask the job to stop, and wait for its outcome; the kubelet ends the wait where it lasts too long."""
    place = JobFolder(folder)
    before = place.outcome()
    if before is not None and before.state != "preempted":
        return 0
    place.stop.touch()
    while place.outcome() == before:
        time.sleep(POLL_S / 10)
    return 0


def pod_index(environment: Mapping[str, str]) -> int:
    """This pod's place among those of its job: of an Indexed Job, else of a PyTorchJob, else there is one."""
    return int(environment.get("JOB_COMPLETION_INDEX") or environment.get("RANK") or 0)


def _ended(place: JobFolder) -> int | None:
    """The exit code of a job that has ended already, so that a pod that is made anew does nothing again."""
    outcome = place.outcome()
    if outcome is None or outcome.state == "preempted":
        return None
    return 0 if outcome.state == "succeeded" else _for_good(outcome.exit_code)


def _final(place: JobFolder, code: int) -> int:
    """The supervisor's exit code as Kubernetes is to take it: a failure that was noted is not tried again."""
    outcome = place.outcome()
    if outcome is not None and outcome.state in ("failed", "cancelled"):
        return _for_good(outcome.exit_code)
    return code


def _for_good(code: int) -> int:
    return code if code in (EXIT_INPUT, EXIT_EMPTY) else EXIT_FINAL


VERBS: Mapping[str, Callable[[Path], int]] = {"run": run, "wait": wait, "alive": alive, "stop": stop}


def main(arguments: Sequence[str]) -> int:
    """Do what a container is told."""
    try:
        return VERBS[arguments[0]](Path(arguments[1]))
    except JobError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_INPUT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
