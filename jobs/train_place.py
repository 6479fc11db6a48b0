"""What a training's processes find around them: the launcher that started them, and the job that they belong to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cluster import cost, heartbeats, rendezvous
from cluster.job_folder import ENV_FOLDER, ENV_TOKEN, JobFolder
from cluster.pulse import Care, Fence, Pulse
from cluster.rendezvous import Rendezvous
from pipeline.config import TrainConfig
from pipeline.ranks.rank import Address, Rank

TAKE_OVER_S = 60.0  # an attempt that is over sees so within seconds, unless its machine hangs


@dataclass(frozen=True)
class Surroundings:
    """``job``: the folder of the job, None outside of one; ``token``: of the attempt, empty outside of one;
    ``launched``: this process's place among the ranks that a launcher started, None where there is no launcher."""

    job: JobFolder | None
    token: str
    launched: Rendezvous | None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Surroundings:
        """What the environment says.

        Raises:
            JobError: it contradicts itself.
        """
        folder = environment.get(ENV_FOLDER)
        job = JobFolder(Path(folder)) if folder else None
        return cls(job, environment.get(ENV_TOKEN, ""), rendezvous.find(environment))

    @property
    def fence(self) -> Fence:
        """Keeps an attempt that is over from writing."""
        return Fence(self.job, self.token)

    @property
    def take_over_s(self) -> float:
        """How long to wait for the end of an earlier attempt of the same job."""
        return TAKE_OVER_S if self.token else 0.0

    def world(self, config: TrainConfig) -> int:
        """How many ranks train."""
        return self.launched.world if self.launched else config.engine.num_processes

    def training(self, config: TrainConfig) -> str:
        """What tells this training's ranks from others."""
        return self.token or str(Path(config.run).absolute())

    def tags(self) -> dict[str, str]:
        """The job, for the tracker; nothing outside of one."""
        if self.job is None:
            return {}
        spec, submitted, note = self.job.spec(), self.job.submitted(), self.job.job / "code.json"
        code = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
        tags = {
            "castbank.job": spec.id,
            "castbank.place": spec.place,
            "castbank.scheduler_id": submitted.scheduler_id if submitted else "",
            "castbank.code_sha256": code.get("sha256", ""),
        }
        return {name: value for name, value in tags.items() if value}

    def costs(self) -> dict[str, float]:
        """What the job has used until now, for the tracker; nothing outside of one."""
        return cost.metrics(self.job.folder) if self.job else {}

    def care(self, config: TrainConfig) -> Care:
        """What is watched over a rank. Outside of a job, where nobody has said how long a start may take, only
        steps and checkpoints count."""
        if self.job is None:
            run, limit_s = Path(config.run), config.engine.timeout_s
            return Care(run, self.fence, (), limit_s, ("train", "checkpoint"))
        stop_files = (self.job.stop, self.job.cancelled)
        return Care(self.job.job, self.fence, stop_files, self.job.spec().stopping.hang_s)


def launched_rank(found: Rendezvous) -> Rank:
    """The rank as the training knows it."""
    address = Address(found.master_addr, found.master_port, found.agent)
    return Rank(found.rank, found.world, found.local_rank, lambda _: None, address)


@contextmanager
def alive(rank: Rank, config: TrainConfig, around: Surroundings) -> Iterator[Rank]:
    """The rank with a heartbeat."""
    pulse = Pulse(rank.index, rank.world, around.token, around.care(config))
    pulse.start()
    try:
        yield replace(rank, beat=pulse.beat, allowed=around.fence.check)
        pulse.beat(heartbeats.DONE, pulse.step)
    finally:
        pulse.stop()
