"""One rank of a training inside a Ray Train worker: the job's command as a process of that worker.

The worker asks its driver's board every second whether to go on. A worker that is cut off from the board ends its
rank: so the ranks of an attempt whose driver or network has gone never run beside those of the next.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.job_folder import ENV_FOLDER, ENV_TOKEN, JobFolder
from cluster.processes import LAST_WORDS_S, Child, Group
from cluster.rendezvous import free_port
from cluster.secret_values import secret_values
from cluster.spec import EXIT_EMPTY, EXIT_INPUT, EXIT_REQUEUE, JobError, JobSpec

POLL_S = 0.2
ASK_S = 1.0  # between two questions to the board
CUT_OFF_S = 30.0  # without an answer from the board; Ray's own calls need up to 16 s to notice a dead network
RUN, STOP, END = "run", "stop", "end"
GONE, ENDED_WITH_PEER = (
    -1,
    -2,
)  # in place of an exit code: nobody saw the rank end; it was ended because of a peer


@dataclass(frozen=True)
class End:
    """How a rank ended. code: of its process; 128 + n where signal n killed it."""

    rank: int
    code: int
    host: str

    @property
    def how(self) -> str:
        """For a person."""
        return "is gone with its node or worker" if self.code == GONE else f"ended with {self.code}"


@dataclass
class Report:
    """hosts: of every rank that has begun; ended: the ranks that ended by themselves, in that order."""

    hosts: dict[int, str] = field(default_factory=dict)
    ended: list[End] = field(default_factory=list)


class Board:
    """An actor beside the driver: what the ranks are to do, and how they ended."""

    def __init__(self) -> None:
        self._word, self._report = RUN, Report()
        self._failed_s: float | None = None

    def word(self) -> str:
        """RUN, STOP after a checkpoint, or END at once: a peer has failed, and had its last words."""
        if self._failed_s is not None and time.monotonic() - self._failed_s > LAST_WORDS_S:
            return END
        return self._word

    def stop(self) -> None:
        """From now on ranks are to checkpoint and end."""
        self._word = STOP

    def begin(self, rank: int, host: str) -> bool:
        """Whether a rank that is about to start may do so."""
        if self._word == RUN:
            self._report.hosts[rank] = host
        return self._word == RUN

    def end(self, rank: int, code: int, host: str) -> None:
        """Note the end of a rank that ended by itself."""
        self._report.ended.append(End(rank, code, host))
        if code not in (0, EXIT_REQUEUE) and self._failed_s is None:
            self._failed_s = time.monotonic()

    def report(self) -> Report:
        """What has been noted so far."""
        return self._report


def run_rank(given: dict[str, Any]) -> None:
    """The training function of one worker: ``given`` holds folder, token and board."""
    import ray
    from ray.train import get_context
    from ray.train.collective import broadcast_from_rank_zero

    place, board, here = JobFolder(Path(given["folder"])), given["board"], get_context()
    rank = here.get_world_rank()
    master = broadcast_from_rank_zero(rendezvous() if rank == 0 else None)
    own = {
        "RANK": rank,
        "LOCAL_RANK": here.get_local_rank(),
        "WORLD_SIZE": here.get_world_size(),
        "LOCAL_WORLD_SIZE": here.get_local_world_size(),
        "GROUP_RANK": here.get_node_rank(),
        ENV_FOLDER: place.folder,
        ENV_TOKEN: given["token"],
        "PYTHONUNBUFFERED": 1,
    }
    host, code = socket.gethostname(), EXIT_REQUEUE
    if ray.get(board.begin.remote(rank, host), timeout=CUT_OFF_S):
        code = _run(place, rank, board, {name: str(value) for name, value in own.items()} | master)
    if code != ENDED_WITH_PEER:
        ray.get(board.end.remote(rank, code, host), timeout=CUT_OFF_S)


def rendezvous() -> dict[str, str]:
    """Where the ranks meet: this node, as Ray knows it, and a port that nobody listens on now."""
    import ray

    address = ray.util.get_node_ip_address()
    return {"MASTER_ADDR": address, "MASTER_PORT": str(free_port(address))}


def environment(spec: JobSpec, own: Mapping[str, str]) -> dict[str, str]:
    """What is added for the rank's process; secrets are read on its own node."""
    code = {"PYTHONPATH": str(spec.code), "PYTHONSAFEPATH": "1"} if spec.code else {}
    threads = {"OMP_NUM_THREADS": str(spec.resources.cpus_per_process)}
    return {**threads, **spec.environment, **secret_values(spec.secrets, os.environ), **code, **own}


def _run(place: JobFolder, rank: int, board: Any, own: Mapping[str, str]) -> int:
    """The exit code of the rank's process, or ENDED_WITH_PEER."""
    place.logs.mkdir(parents=True, exist_ok=True)
    try:
        spec = place.spec()
        child = Child(spec.command, place.rank_log(rank), environment(spec, own))
        group = Group([child], spec.workdir)  # by the thread that stays with it: they die together
    except (OSError, JobError) as error:
        with place.rank_log(rank).open("a", encoding="utf-8") as log:
            log.write(f"rank {rank} cannot be started on {socket.gethostname()}: {error}\n")
        return EXIT_INPUT
    try:
        return _watch(group, board)
    finally:
        group.kill()


def _watch(group: Group, board: Any) -> int:
    import ray

    told, asked_s = False, time.monotonic()
    while (ended := group.ended()) is None:
        time.sleep(POLL_S)
        if time.monotonic() - asked_s < ASK_S:
            continue
        word, asked_s = ray.get(board.word.remote(), timeout=CUT_OFF_S), time.monotonic()
        if word == END:
            return ENDED_WITH_PEER
        if word == STOP and not told:
            told = True
            group.signal(signal.SIGTERM)
    stopped = (
        told and ended.code == 128 + signal.SIGTERM
    )  # it came while Python was ending: peers heard it first
    return EXIT_REQUEUE if stopped else ended.code


def verdict(report: Report, gone: Sequence[int]) -> tuple[int, End | None]:
    """The exit code that tells most, and whose it was: bad input, then the signal that killed a rank first, then a
    rank whose worker is ``gone``, because of which its peers fail, then the first failure."""
    failed = [end for end in report.ended if end.code not in (0, EXIT_REQUEUE)]
    failed += [End(rank, GONE, report.hosts.get(rank, "")) for rank in gone]
    if failed:
        told = min(failed, key=lambda end: (end.code not in (EXIT_INPUT, EXIT_EMPTY), 0 < end.code <= 128))
        return (1 if told.code == GONE else told.code), told
    return (EXIT_REQUEUE if any(end.code == EXIT_REQUEUE for end in report.ended) else 0), None
