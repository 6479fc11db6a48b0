"""Which rank of which training a process is, and where its peers meet, from what a launcher has set for it.

Read are torchrun's variables (also set by Ray Train, PyTorchJob and by hand), those of mpirun, of srun and of an
indexed Kubernetes Job. A launcher may run inside another, so the innermost one counts; where two contradict each
other without such a reason, nothing is guessed.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cluster.spec import JobError

Source = Literal["explicit", "mpi", "slurm", "kubernetes"]
MAX_PORT = 65535
STEP_ONLY = ("SLURM_STEP_ID", "SLURM_STEPID", "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS")
SPECIAL_STEPS = 0xFFFFFFF0  # Slurm's ids of the batch, interactive and external steps lie above
PORTS, STEPS_APART = (10_000, 30_000), 16  # derived ports stay below the ephemeral ones, which start at 32768
KUBERNETES_PORT = 29_500  # torchrun's; a pod has an address, and so all ports, of its own


@dataclass(frozen=True)
class Rendezvous:
    """A process's place in ``[0, world)`` and on its host, and where the first of them listens.

    ``master_port`` is 0, any free one, where a process is alone and nothing was said. ``source``: who started it.
    ``agent``: empty, or that torchrun's own server listens there instead, and a name for this round of processes.
    """

    rank: int
    world: int
    local_rank: int
    master_addr: str
    master_port: int
    source: Source
    agent: str = ""


def free_port(address: str = "") -> int:
    """A port of this host that nobody listens on now, for peers that come to ``address``."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class _Launcher:
    """The variables of one kind of launcher; of several for one thing the first that is set counts."""

    source: Source
    rank: str
    world: tuple[str, ...]
    local: tuple[str, ...] = ()
    inner: tuple[str, ...] = ()  # set only by launchers of this kind that may well run inside another


_LAUNCHERS = (  # innermost first
    _Launcher(
        "explicit",
        "RANK",
        ("WORLD_SIZE",),
        ("LOCAL_RANK",),
        ("TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE", "LOCAL_SIZE"),  # torchrun; Ray Train too; deepspeed
    ),
    _Launcher("mpi", "OMPI_COMM_WORLD_RANK", ("OMPI_COMM_WORLD_SIZE",), ("OMPI_COMM_WORLD_LOCAL_RANK",)),
    _Launcher("mpi", "PMI_RANK", ("PMI_SIZE",), ("MPI_LOCALRANKID",)),
    _Launcher("slurm", "SLURM_PROCID", ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), ("SLURM_LOCALID",)),
    _Launcher("kubernetes", "JOB_COMPLETION_INDEX", ("WORLD_SIZE",)),
)


@dataclass(frozen=True)
class _Claim:
    """What a launcher says in this environment, each number with the name of its variable."""

    launcher: _Launcher
    rank: tuple[str, int]
    world: tuple[str, int] | None
    local: tuple[str, int] | None


def find(environment: Mapping[str, str]) -> Rendezvous | None:
    """The rendezvous that a launcher describes; None where none has started this process as a rank.

    Raises:
        JobError: launchers contradict each other, something is missing, or a value is out of range.
    """
    known = {name: value for name, value in environment.items() if value != ""}
    claims = [_claim(launcher, known) for launcher in _LAUNCHERS if _started_by(launcher, known)]
    if not claims:
        if known.get("WORLD_SIZE", "1") != "1":
            raise JobError(
                f"environment: WORLD_SIZE={known['WORLD_SIZE']} is set and RANK not, and no launcher started this "
                "process as a rank; start it with torchrun, srun or mpirun, or unset WORLD_SIZE"
            )
        return None
    chosen, *others = claims
    if not any(name in known for name in chosen.launcher.inner):
        for other in others:
            _check_agreement(chosen, other)
        _check_number(chosen.world, _number(("WORLD_SIZE",), known, least=1))
    return _complete(chosen, others, known)


def _started_by(launcher: _Launcher, known: Mapping[str, str]) -> bool:
    if launcher.rank not in known:
        return False
    if launcher.source == "slurm":
        return _is_step(known)
    if (
        launcher.source == "kubernetes"
    ):  # the index of a Job that is an array of single processes means nothing here
        return "RANK" not in known and "WORLD_SIZE" in known
    return True


def _is_step(known: Mapping[str, str]) -> bool:
    """Whether srun started this process as one of its tasks.

    A script under sbatch has SLURM_PROCID=0 and the job's SLURM_NTASKS, but nothing of a step; a shell under salloc
    has a special step; one under ``srun --pty`` is a step of one task in front of which a person sits.
    """
    step = known.get("SLURM_STEP_ID", known.get("SLURM_STEPID", ""))
    if step.isdecimal() and int(step) >= SPECIAL_STEPS:
        return False
    if "SLURM_PTY_PORT" in known and known.get("SLURM_STEP_NUM_TASKS") == "1":
        return False
    return known["SLURM_PROCID"] != "0" or any(name in known for name in STEP_ONLY)


def _claim(launcher: _Launcher, known: Mapping[str, str]) -> _Claim:
    rank, world = _number((launcher.rank,), known), _number(launcher.world, known, least=1)
    assert rank is not None
    if world is not None and rank[1] >= world[1]:
        raise JobError(
            f"environment: {rank[0]}={rank[1]} and {world[0]}={world[1]}: must be from 0 to {world[1] - 1}; start "
            "every process with a rank of its own below their number"
        )
    return _Claim(launcher, rank, world, _number(launcher.local, known))


def _number(names: Sequence[str], known: Mapping[str, str], least: int = 0) -> tuple[str, int] | None:
    name = next((name for name in names if name in known), None)
    if name is None:
        return None
    if not known[name].isdecimal() or int(known[name]) < least:
        raise JobError(
            f"environment: {name}={known[name]!r}: must be a whole number, at least {least}; set what the launcher "
            "gives, or unset it"
        )
    return name, int(known[name])


def _check_agreement(inner: _Claim, outer: _Claim) -> None:
    """Raise where both claim to have started this process and they say different things."""
    if outer.world is not None and outer.world[1] == 1:  # one task in which the ranks were started
        return
    nested = inner.launcher.source == "mpi"  # mpirun starts its daemons with srun, one per node
    if nested and inner.world is not None and outer.world is not None and inner.world[1] != outer.world[1]:
        return
    _check_number(inner.rank, outer.rank)
    _check_number(inner.world, outer.world)


def _check_number(mine: tuple[str, int] | None, theirs: tuple[str, int] | None) -> None:
    if mine is not None and theirs is not None and mine[1] != theirs[1]:
        raise JobError(
            f"environment: {mine[0]}={mine[1]} and {theirs[0]}={theirs[1]} disagree about the same process; unset "
            "the one that was left over or set for all processes alike, and where one launcher is meant to run "
            "inside another, have the inner one set LOCAL_WORLD_SIZE"
        )


def _complete(chosen: _Claim, others: Sequence[_Claim], known: Mapping[str, str]) -> Rendezvous:
    """Fill in what the chosen launcher does not say, or raise with the names of all that is missing."""
    claims = (chosen, *others)
    world = next((claim.world[1] for claim in claims if claim.world is not None), None)
    local = next((claim.local[1] for claim in claims if claim.local is not None), None)
    if local is None and (world == 1 or _one_rank_a_pod(chosen, known)):
        local = 0
    address, port = _address(world, claims, known), _port(world, claims, known)
    found = (world, local, address, port)
    if world is None or local is None or address is None or port is None:
        names = (
            *chosen.launcher.world[-1:],
            (*chosen.launcher.local, "LOCAL_RANK")[0],
            "MASTER_ADDR",
            "MASTER_PORT",
        )
        missing = ", ".join(name for name, value in zip(names, found, strict=True) if value is None)
        raise JobError(
            f"environment: {chosen.rank[0]}={chosen.rank[1]} is set and {missing} not; have the launcher set it, "
            "the same on all ranks for MASTER_ADDR (the host of rank 0) and MASTER_PORT (a free port there)"
        )
    if local >= world:
        raise JobError(
            f"environment: local rank {local} and {world} ranks in all: must be from 0 to {world - 1}"
        )
    source, agent = chosen.launcher.source, ""
    if source == "explicit" and known.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        agent = f"round-{known.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    return Rendezvous(chosen.rank[1], world, local, address, port, source, agent)


def _one_rank_a_pod(chosen: _Claim, known: Mapping[str, str]) -> bool:
    """PyTorchJob and indexed Jobs name no local rank: a pod is one rank, unless a launcher in it says more."""
    return chosen.launcher.source == "kubernetes" or "KUBERNETES_SERVICE_HOST" in known


def _address(world: int | None, claims: Sequence[_Claim], known: Mapping[str, str]) -> str | None:
    if "MASTER_ADDR" in known:
        return known["MASTER_ADDR"]
    nodes = known.get("SLURM_STEP_NODELIST", known.get("SLURM_JOB_NODELIST"))
    if nodes is not None and any(claim.launcher.source == "slurm" for claim in claims):
        return first_host(nodes)
    here = {known.get("OMPI_COMM_WORLD_LOCAL_SIZE"), known.get("MPI_LOCALNRANKS")}
    return "127.0.0.1" if world == 1 or str(world) in here else None


def _port(world: int | None, claims: Sequence[_Claim], known: Mapping[str, str]) -> int | None:
    given = _number(("MASTER_PORT",), known, least=1)
    if given is not None:
        if given[1] > MAX_PORT:
            raise JobError(f"environment: MASTER_PORT={given[1]}: must be from 1 to {MAX_PORT}")
        return given[1]
    if world == 1:
        return 0
    job = _number(("SLURM_JOB_ID", "SLURM_JOBID"), known)
    if job is not None and any(claim.launcher.source == "slurm" for claim in claims):
        step = _number(("SLURM_STEP_ID", "SLURM_STEPID"), known) or ("", 0)
        low, high = PORTS
        return low + (job[1] * STEPS_APART + step[1] % STEPS_APART) % (high - low)
    return KUBERNETES_PORT if claims[0].launcher.source == "kubernetes" else None


def first_host(nodes: str) -> str:
    """The first host of a Slurm node list such as ``gpu[01-03,7]-ib,login1``."""
    first = re.match(r"(?:\[[^\]]*\]|[^,\[])+", nodes)
    if first is None:
        raise JobError(f"environment: SLURM_JOB_NODELIST={nodes!r}: no list of nodes; set MASTER_ADDR")
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first.group())
