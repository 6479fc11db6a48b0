"""The driver of a training on a Ray cluster: places one Ray Train worker per rank, and ends as they ended.

Ray Train's own retries are off. A rank or a node that dies ends the attempt; the job's supervisor then starts the
next, as its policy says, under a token of its own, which keeps ranks of the old one from writing. With
``ray.min_processes`` the next attempt takes what nodes are left. That is counted here: Ray Train's elastic policy
counts by resources alone, so that STRICT_SPREAD over too few nodes waits forever (Ray 2.60).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from cluster import heartbeats
from cluster.job_folder import ENV_TOKEN, JobFolder
from cluster.ray_jobs.rank import Board, Report, run_rank, verdict
from cluster.spec import EXIT_INPUT, EXIT_REQUEUE, JobError, JobSpec

POLL_S = 0.2
GIB = 2**30
RECOUNT_S = 30  # an elastic job's wait for its workers, before the nodes are counted again
PLACE_S = 900  # that of another job, whose place in Ray's queue is worth keeping
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
OPTIONS = {  # of Ray Train
    "TRAIN_ENABLE_SHARE_CUDA_VISIBLE_DEVICES": "1",  # a node's ranks see all of their GPUs; LOCAL_RANK picks one
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "60",  # its default of 600 is for workers that train themselves
}


def num_workers(spec: JobSpec, nodes: Sequence[Mapping[str, float]]) -> int:
    """How many workers to ask for: all ranks; or as many as fit, where the job is elastic and that is enough.

    Args:
        spec: of the job.
        nodes: the resources of every living node.

    Raises:
        JobError: min_processes is more than the ranks.
    """
    least, most = spec.ray.min_processes, spec.world
    if least > most:
        raise JobError(f"ray.min_processes: {least} came, but the job has {most} ranks; give at most {most}")
    fitting = [_fits(node, worker_resources(spec)) for node in nodes]
    room = {"STRICT_SPREAD": sum(1 for count in fitting if count), "STRICT_PACK": max(fitting, default=0)}
    found = min(most, room.get(spec.ray.placement, sum(fitting)))
    return found if 0 < least <= found else most


def worker_resources(spec: JobSpec) -> dict[str, float]:
    """What one rank reserves."""
    needs = spec.resources
    found: dict[str, float] = {"CPU": needs.cpus_per_process}
    if needs.gpus_per_process:
        found["GPU"] = needs.gpus_per_process
    if needs.memory_gib:
        found["memory"] = needs.memory_gib * GIB / needs.processes_per_node
    return found


def _fits(node: Mapping[str, float], worker: Mapping[str, float]) -> int:
    return min(int(node.get(name, 0.0) // amount) for name, amount in worker.items() if amount)


class Driver:
    """One attempt at a training, on the cluster that RAY_ADDRESS names."""

    def __init__(self, folder: Path, token: str) -> None:
        self._place, self._token = JobFolder(folder), token
        self._spec = self._place.spec()
        self._asked = threading.Event()

    def run(self) -> int:
        """The exit code of the attempt.

        Raises:
            JobError: the job asks for what cannot be.
        """
        self._connect()
        import ray

        board, pool = self._board(), ThreadPoolExecutor(1)  # the thread at hand is for signals
        while True:
            count = num_workers(self._spec, [node["Resources"] for node in ray.nodes() if node["Alive"]])
            self._say(f"{count} of {self._spec.world} ranks are to be placed, {self._spec.ray.placement}")
            fitted = pool.submit(self._fit, board, count)
            if not self._has_ended(fitted, board, count):
                self._say("asked to stop before a rank had begun")
                return EXIT_REQUEUE
            if not _found_no_room(fitted.exception()):
                return self._code(ray.get(board.report.remote()), fitted.exception())
            self._say(f"{count} ranks of {worker_resources(self._spec)} found no room; the job waits on")

    def _connect(self) -> None:
        """Join the cluster. Ray puts in a handler for SIGTERM that exits, so signals wait until ours is in."""
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        import ray

        wait_s = RECOUNT_S if self._spec.ray.min_processes else PLACE_S
        for name, value in {**OPTIONS, "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(wait_s)}.items():
            os.environ.setdefault(name, value)
        ray.init(address=os.environ.get("RAY_ADDRESS", "auto"), log_to_driver=False, logging_level="WARNING")
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: self._asked.set())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def _board(self) -> Any:
        """On this node, so that it is gone exactly when the driver is."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        return ray.remote(num_cpus=0)(Board).options(scheduling_strategy=here).remote()

    def _fit(self, board: Any, count: int) -> None:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

        spec = self._spec
        scaling = ScalingConfig(
            num_workers=count,
            use_gpu=spec.resources.gpus_per_process > 0,
            resources_per_worker=worker_resources(spec),
            placement_strategy=spec.ray.placement,
        )
        run = RunConfig(
            name=self._token,
            storage_path=str(self._place.job / "ray"),
            failure_config=FailureConfig(
                max_failures=0, max_preemption_failures=0, controller_failure_limit=0
            ),
        )
        given = {"folder": str(spec.folder), "token": self._token, "board": board}
        DataParallelTrainer(run_rank, train_loop_config=given, scaling_config=scaling, run_config=run).fit()

    def _has_ended(self, fitted: Future[None], board: Any, count: int) -> bool:
        """Wait, and pass a request to stop on; False where it came before any rank began, which none will now. The
        supervisor is told of the ranks as soon as they are placed: one of them begins only when all are."""
        import ray

        told = placed = False
        while not wait([fitted], POLL_S).done:
            if not placed and ray.get(board.report.remote()).hosts:
                placed = True
                heartbeats.note_world(self._place.job, self._token, count)
            if self._asked.is_set() and not told:
                told = True
                ray.get(board.stop.remote())
                if not ray.get(board.report.remote()).hosts:
                    return False
        return True

    def _code(self, report: Report, error: BaseException | None) -> int:
        """The exit code, after a word on why; the rank that failed is noted for the supervisor, to whom all this
        is one process."""
        code, failed = verdict(report, list(getattr(error, "worker_failures", ())))
        if failed is not None:
            self._say(f"rank {failed.rank} on {failed.host} {failed.how}")
            self._place.note_failed_rank(failed.rank, failed.host, self._token)
        elif error is not None:
            self._say(f"{type(error).__name__}: {error}")
            code = 1
        return EXIT_REQUEUE if self._asked.is_set() and error is not None else code

    def _say(self, text: str) -> None:
        sys.stderr.write(f"castbank ranks: {text}\n")
        sys.stderr.flush()


def _found_no_room(error: BaseException | None) -> bool:
    """Whether the workers could not be placed in time, so that no rank has begun."""
    cause = getattr(error, "controller_failure", None)
    return type(cause).__name__ == "WorkerGroupStartupTimeoutError"  # a private class of Ray's


def main(arguments: Sequence[str]) -> int:
    """Run one attempt at the training of a folder."""
    try:
        return Driver(Path(arguments[0]), os.environ.get(ENV_TOKEN, "")).run()
    except JobError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_INPUT


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # Ray's thread may still wait for workers that are not to come
