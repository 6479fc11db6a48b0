"""What launchers put into the environment, as seen under the real ones, and what is made of it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from cluster.rendezvous import Rendezvous, find, first_host, free_port
from cluster.spec import JobError
from tests.cluster.slurm_lab.lab import Lab

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "a",
    "MASTER_PORT": "29400",
    "LOCAL_WORLD_SIZE": "2",
    "TORCHELASTIC_RUN_ID": "none",
}
BY_HAND = {
    name: TORCHRUN[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
}
BATCH = {  # of a script under sbatch -N2 --ntasks-per-node=2, Slurm 22.05
    "SLURM_GTIDS": "0",
    "SLURM_JOB_ID": "1",
    "SLURM_JOB_NODELIST": "n[1-2]",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_NPROCS": "4",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "0",
    "SLURM_TASKS_PER_NODE": "2(x2)",
}
TASK = BATCH | {  # the fourth task of an srun in it
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_STEP_NUM_TASKS": "4",
}
SALLOC = {"SLURM_JOB_ID": "2", "SLURM_JOB_NODELIST": "n1", "SLURM_NTASKS": "2", "SLURM_NPROCS": "2"}
SALLOC_STEP = SALLOC | {  # LaunchParameters=use_interactive_step
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_PTY_PORT": "38113",
    "SLURM_STEP_ID": "4294967290",
    "SLURM_STEP_NODELIST": "n1",
    "SLURM_STEP_NUM_TASKS": "1",
}
PTY = SALLOC_STEP | {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "1", "SLURM_NPROCS": "1"}  # srun --pty
MPIRUN = {
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
HYDRA = {"PMI_RANK": "1", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2", "MASTER_ADDR": "h"}
POD = {"JOB_COMPLETION_INDEX": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "job-0.job"}
PYTORCHJOB = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "job-master-0",
    "MASTER_PORT": "23456",
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (TORCHRUN, Rendezvous(3, 4, 1, "a", 29400, "explicit")),
        (BY_HAND, Rendezvous(3, 4, 1, "a", 29400, "explicit")),
        (TASK, Rendezvous(3, 4, 1, "n1", 10016, "slurm")),
        (TASK | {"MASTER_ADDR": "b", "MASTER_PORT": "7"}, Rendezvous(3, 4, 1, "b", 7, "slurm")),
        (MPIRUN | {"MASTER_PORT": "7"}, Rendezvous(1, 2, 1, "127.0.0.1", 7, "mpi")),
        (HYDRA | {"MASTER_PORT": "7"}, Rendezvous(1, 4, 1, "h", 7, "mpi")),
        (POD, Rendezvous(1, 2, 0, "job-0.job", 29500, "kubernetes")),
        (PYTORCHJOB, Rendezvous(1, 2, 0, "job-master-0", 23456, "explicit")),
        ({"RANK": "0", "WORLD_SIZE": "1"}, Rendezvous(0, 1, 0, "127.0.0.1", 0, "explicit")),
    ],
    ids=["torchrun", "by-hand", "srun", "srun-master", "mpirun", "hydra", "pod", "pytorchjob", "alone"],
)
def test_every_launcher_is_understood(environment: dict[str, str], expected: Rendezvous) -> None:
    assert find(environment) == expected


@pytest.mark.parametrize(
    "environment",
    [{}, {"RANK": ""}, BATCH, SALLOC, SALLOC_STEP, PTY, {"JOB_COMPLETION_INDEX": "1"}, {"WORLD_SIZE": "1"}],
    ids=["nothing", "empty", "sbatch", "salloc", "salloc-step", "srun-pty", "array-pod", "world-of-one"],
)
def test_a_shell_or_a_single_process_is_no_rank(environment: dict[str, str]) -> None:
    assert find(environment) is None


@pytest.mark.parametrize(
    "around",
    [
        TASK | {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"},  # srun torchrun, one per node
        PTY,
        TASK | {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},  # a job on this machine, started in a step
        BATCH,
        {"JOB_COMPLETION_INDEX": "1"},
    ],
)
def test_torchrun_inside_another_launcher_counts(around: dict[str, str]) -> None:
    assert find(around | TORCHRUN) == find(TORCHRUN)


def test_mpirun_started_its_daemons_with_srun() -> None:
    around = TASK | {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "3"}
    found = find(around | MPIRUN)
    assert found is not None
    assert (found.rank, found.world, found.source) == (1, 2, "mpi")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (BY_HAND | TASK | {"RANK": "1", "SLURM_PROCID": "0"}, "RANK=1 and SLURM_PROCID=0 disagree"),
        (TASK | {"RANK": "0"}, "RANK=0 and SLURM_PROCID=3 disagree"),
        (TASK | {"WORLD_SIZE": "8"}, "SLURM_STEP_NUM_TASKS=4 and WORLD_SIZE=8 disagree"),
        (TASK | BY_HAND | {"WORLD_SIZE": "8"}, "WORLD_SIZE=8 and SLURM_STEP_NUM_TASKS=4 disagree"),
        (
            MPIRUN | TASK | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"},
            "OMPI_COMM_WORLD_RANK=1 and SLURM_PROCID=0",
        ),
        (BY_HAND | {"RANK": "4"}, "RANK=4 and WORLD_SIZE=4: must be from 0 to 3"),
        (BY_HAND | {"RANK": "-1"}, "RANK='-1': must be a whole number"),
        (BY_HAND | {"RANK": "two"}, "RANK='two': must be a whole number"),
        (BY_HAND | {"WORLD_SIZE": "0"}, "WORLD_SIZE='0': must be a whole number, at least 1"),
        (BY_HAND | {"MASTER_PORT": "70000"}, "MASTER_PORT=70000: must be from 1 to 65535"),
        (BY_HAND | {"MASTER_PORT": "http"}, "MASTER_PORT='http'"),
        (BY_HAND | {"LOCAL_RANK": "9"}, "local rank 9 and 4 ranks in all"),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a"},
            "RANK=0 is set and LOCAL_RANK, MASTER_PORT not",
        ),
        ({"RANK": "0"}, "WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT not"),
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE=4 is set and RANK not"),
        (BATCH | {"WORLD_SIZE": "4"}, "start it with torchrun, srun or mpirun"),
        (HYDRA, "PMI_RANK=1 is set and MASTER_PORT not"),
    ],
)
def test_what_cannot_be_is_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(JobError) as caught:
        find(environment)
    assert message in str(caught.value)


def test_jobs_and_steps_side_by_side_meet_at_different_ports() -> None:
    ports = {
        found.master_port
        for job in range(100, 200)
        for step in range(4)
        if (found := find(TASK | {"SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)}))
    }
    assert len(ports) == 400
    assert 10_000 <= min(ports) <= max(ports) < 32_768


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n[01-03,7]", "n01"),
        ("a,b[1-2]", "a"),
        ("rack[1-2]n[4,9],x", "rack1n4"),
        ("gpu[01-03,7]-ib,login1", "gpu01-ib"),
        ("n[7,9-12]", "n7"),
        ("n1", "n1"),
    ],
)
def test_the_first_host_of_a_node_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


@pytest.mark.parametrize("nodes", ["n[01-03,7]", "a,b[1-2]", "rack[1-2]n[4,9],x", "n[7,9-12]"])
def test_slurm_itself_expands_a_node_list_to_the_same_first_host(nodes: str, slurm: Lab) -> None:
    assert first_host(nodes) == slurm.ask("scontrol", "show", "hostnames", nodes).split()[0]


@pytest.mark.parametrize(("address", "family"), [("", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_a_free_port_can_be_listened_on(address: str, family: socket.AddressFamily) -> None:
    with socket.socket(family) as first, socket.socket(family) as second:
        for listens in (first, second):
            listens.bind((address, free_port(address)))
            listens.listen()
        assert first.getsockname()[1] != second.getsockname()[1]


def test_torchrun_itself_is_understood() -> None:
    script = "import json, os; from dataclasses import asdict; from cluster.rendezvous import find; "
    script += "print(json.dumps(asdict(find(os.environ))), flush=True)"
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "--no-python",
    ]
    done = subprocess.run(
        [*command, sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    found = sorted((json.loads(line) for line in done.stdout.splitlines()), key=lambda item: item["rank"])
    assert [(item["rank"], item["world"], item["local_rank"]) for item in found] == [(0, 2, 0), (1, 2, 1)]
    assert {item["source"] for item in found} == {"explicit"}
