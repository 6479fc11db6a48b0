"""What squeue and sacct say, as one status per job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cluster.job_folder import JobFolder
from cluster.spec import EXIT_REQUEUE, LIVE, JobSpec, State, Status

FIELDS = "JobArrayID:|,State:|,exit_code:|,Reason:|,NodeList:|"  # -O with a separator: Slurm 20.02 or newer
UNKNOWN_ID = "Invalid job id specified"
STATES: dict[str, State] = {
    "PENDING": "queued", "CONFIGURING": "queued", "REQUEUED": "queued", "REQUEUE_FED": "queued",
    "REQUEUE_HOLD": "queued", "SPECIAL_EXIT": "queued", "RESV_DEL_HOLD": "queued",
    "RUNNING": "running", "COMPLETING": "running", "SUSPENDED": "running", "STOPPED": "running",
    "SIGNALING": "running", "STAGE_OUT": "running", "RESIZING": "running",
    "COMPLETED": "succeeded", "CANCELLED": "cancelled", "REVOKED": "cancelled", "PREEMPTED": "preempted",
    "FAILED": "failed", "TIMEOUT": "failed", "DEADLINE": "failed", "OUT_OF_MEMORY": "failed",
    "NODE_FAIL": "lost", "BOOT_FAIL": "lost",
}  # fmt: skip
REMEDIES = {  # why a job waits for ever, or ended, and what its owner may do
    "PartitionConfig": "never starts so: ask for fewer resources, or another slurm.partition",
    "PartitionNodeLimit": "never starts so: lower resources.nodes, or choose another slurm.partition",
    "PartitionTimeLimit": "never starts so: lower resources.time_limit_min, or choose another slurm.partition",
    "BadConstraints": "never starts so: change slurm.constraint or resources",
    "DependencyNeverSatisfied": "a job of after did not succeed",
    "ReqNodeNotAvail": "nodes are down or reserved",
    "JobHeldUser": "held: scontrol release",
    "JobHeldAdmin": "held by an administrator",
    "launch_failed_requeued_held": "its nodes could not start it: scontrol release, or slurm.exclude",
    "TIMEOUT": "it did not end within its time limit: raise resources.time_limit_min",
    "OUT_OF_MEMORY": "raise resources.memory_gib",
}
ORDER: tuple[State, ...] = (  # of an array's parts, the first that any has is the array's
    "running", "queued", "failed", "lost", "cancelled", "preempted", "unknown", "succeeded",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A job or a part of an array, in Slurm's words. nodes: where it runs."""

    job_id: str  # of the whole array
    state: str
    exit_code: int = 0
    reason: str = ""
    nodes: str = ""

    @property
    def alive(self) -> bool:
        """Whether it waits or runs."""
        return STATES.get(self.state, "unknown") in LIVE


def from_squeue(text: str) -> Iterator[Row]:
    """Rows of ``squeue --Format=FIELDS``."""
    for line in text.splitlines():
        job_id, state, code, reason, nodes, *_ = [
            *(part.strip() for part in line.split("|")),
            "",
            "",
            "",
            "",
            "",
        ]
        if job_id:
            status = _number(code)  # of wait(2): a signal's number, or the exit code in the second byte
            yield Row(job_id.partition("_")[0], state, status >> 8 or status, reason, nodes)


def from_sacct(text: str) -> Iterator[Row]:
    """Rows of ``sacct --parsable2 --format=JobID,State,ExitCode``; of a requeued job only the last counts."""
    last: dict[str, Row] = {}
    for line in text.splitlines():
        full_id, state, code, *_ = [*line.split("|"), "", "", ""]
        if full_id and state:
            last[full_id] = Row(
                full_id.partition("_")[0], state.partition(" ")[0], _number(code.partition(":")[0])
            )
    yield from last.values()


def status(rows: Sequence[Row], spec: JobSpec) -> Status:
    """How a job stands, all its parts together; unknown where Slurm says nothing."""
    if not rows:
        return Status("unknown", "Slurm does not know it (any more)")
    each = [_one(row, spec) for row in rows]
    if not spec.array:
        return each[-1]
    counts = Counter(part.state for part in each)
    state = next(name for name in ORDER if name in counts)
    told = ", ".join(f"{counts[name]} {name}" for name in ORDER if name in counts)
    why = next((part.detail for part in each if part.state == state and part.detail), "")
    return Status(state, f"{spec.array} parts: {told}{'; ' if why else ''}{why}")


def _one(row: Row, spec: JobSpec) -> Status:
    state = STATES.get(row.state, "unknown")
    if state in ("failed", "lost") and JobFolder(spec.folder).cancelled.exists():
        return Status("cancelled", row.state)
    if row.state == "FAILED" and row.exit_code == EXIT_REQUEUE:
        return Status("preempted", "stopped on request; castbank requeue goes on")
    if state == "running":
        return Status(state, f"{row.state} on {row.nodes}" if row.nodes else row.state)
    reason = row.reason if row.reason not in ("", "None") else ""
    remedy = REMEDIES.get(row.reason.strip("()").split(",")[0]) or REMEDIES.get(row.state, "")
    detail = f"{row.state} ({reason})" if reason else row.state
    return Status(state, f"{detail}: {remedy}" if remedy else detail)


def _number(text: str) -> int:
    """As Slurm prints it; 0 where it prints none."""
    return int(text) if text.strip().isdigit() else 0
