"""A Ray cluster as a place for jobs: one submission to its job server per job, its supervisor as the entrypoint.

A preparation spreads its tasks over the cluster by itself; a training's ranks are placed by ``train``.
Folder, code and interpreter must be where the job names them on every node that takes part.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from cluster import secret_values
from cluster.job_folder import Attempt, JobFolder
from cluster.processes import Child, one_per_part
from cluster.spec import EXIT_REQUEUE, JobError, JobSpec, State, Status

DEFAULT_ADDRESS = "http://127.0.0.1:8265"  # Ray's own
ENV_ADDRESS, ENV_ID = "RAY_ADDRESS", "RAY_JOB_SUBMISSION_ID"
ANSWER_S = 5.0  # for a server to take a connection; Ray's client would wait for minutes
STOP_MARGIN_S = 30  # beyond grace_s, in which the supervisor kills and notes the end by itself
GIB = 2**30
STATES: dict[str, State] = {
    "PENDING": "queued",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "STOPPED": "cancelled",
    "FAILED": "failed",
}
LOST = (
    "JOB_SUPERVISOR_ACTOR_DIED",
    "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE",
)  # Ray's words: its node went down
DETAIL = 200  # characters of Ray's own message that are kept


class RayLauncher:
    """See ``cluster.launchers.Launcher``; the scheduler's id is Ray's submission id."""

    def render(self, spec: JobSpec) -> str:
        """The submission as YAML, key for key what Ray's job server is sent."""
        import yaml

        text: str = yaml.safe_dump(request(spec), sort_keys=False, width=100)
        return text

    def submit(self, spec: JobSpec, after: Sequence[str]) -> str:
        """Hand the job over; ``after`` is the supervisor's affair.

        Raises:
            JobError: the server cannot be reached or refuses, no node could ever hold a process of the job, or
                an option has no meaning on Ray.
        """
        asked = request(spec)
        address = address_of(spec, os.environ)
        place = JobFolder(spec.folder)
        place.script.parent.mkdir(parents=True, exist_ok=True)
        place.script.write_text(self.render(spec), encoding="utf-8")
        with _server(address) as client:
            _check_nodes(spec, client)
            taken = {details.submission_id for details in client.list_jobs()}
            asked["submission_id"] = _free_id(asked["submission_id"], taken)
            asked["runtime_env"]["env_vars"][ENV_ID] = asked["submission_id"]
            submitted: str = client.submit_job(**asked)
        return submitted

    def states(self, jobs: Mapping[str, JobSpec]) -> dict[str, Status]:
        """How jobs stand, with one question per server."""
        found: dict[str, Status] = {}
        by_address: dict[str, list[str]] = {}
        for job_id, spec in jobs.items():
            by_address.setdefault(address_of(spec, os.environ), []).append(job_id)
        for address, job_ids in by_address.items():
            with _server(address) as client:
                known = {details.submission_id: details for details in client.list_jobs()}
            gone = Status(
                "unknown", f"the server at {address} does not know it; was its cluster started anew?"
            )
            found |= {job_id: _status(known[job_id]) if job_id in known else gone for job_id in job_ids}
        return found

    def cancel(self, spec: JobSpec, scheduler_id: str) -> None:
        """SIGTERM to the supervisor and all it has started on its node. Ray's SIGKILL, by default 3 s later, comes
        only after ``grace_s`` and a margin, as the submission said.

        Raises:
            JobError: the server cannot be reached, or does not know the job.
        """
        address = address_of(spec, os.environ)
        with _server(address) as client:
            known = {details.submission_id for details in client.list_jobs()}
            if scheduler_id not in known:
                raise JobError(
                    f"job {scheduler_id!r} is not known at {address}: its cluster was started anew, or ray.address "
                    "names another one; there is nothing to cancel"
                )
            client.stop_job(scheduler_id)


def children(spec: JobSpec, attempt: Attempt) -> list[Child]:
    """The driver that places a training's ranks; else the command itself, or one per part of an array."""
    place = JobFolder(spec.folder)
    cluster = {ENV_ADDRESS: os.environ.get(ENV_ADDRESS, "auto")}
    if spec.ranks:
        driver = (spec.command[0], "-P", "-m", "cluster.ray_jobs.train", str(spec.folder))
        return [Child(driver, place.log, cluster)]
    if not spec.array:
        return [Child(spec.command, place.rank_log(0), cluster)]
    return one_per_part(spec, place, cluster)


def request(spec: JobSpec) -> dict[str, Any]:
    """What the job server is sent. The resources are those of the entrypoint: none for a driver, whose ranks and
    tasks ask for their own; a command that wants GPUs and is no driver gets its node's.

    Raises:
        JobError: something of the job cannot be said to Ray.
    """
    secret_values.check(spec.secrets, ("file",), "ray")
    entrypoint = (spec.command[0], "-P", "-m", "cluster.supervisor", str(spec.folder))
    asked: dict[str, Any] = {
        "submission_id": submission_id(spec),
        "entrypoint": shlex.join(entrypoint),
        "entrypoint_num_cpus": 0,
        "runtime_env": {"env_vars": _variables(spec)},
        "metadata": {"castbank_id": spec.id, "name": spec.name, "folder": str(spec.folder)},
    }
    needs = spec.resources
    if needs.gpus_per_process and not spec.ranks:
        asked["entrypoint_num_cpus"] = needs.cpus_per_process * spec.world
        asked["entrypoint_num_gpus"] = needs.gpus_per_process * spec.world
        if needs.memory_gib:
            asked["entrypoint_memory"] = int(needs.memory_gib * GIB)
    return asked


def submission_id(spec: JobSpec) -> str:
    """What Ray calls the job, the first time that it is submitted."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", f"castbank-{spec.id}")


def address_of(spec: JobSpec, environment: Mapping[str, str]) -> str:
    """Where the job server of a job is.

    Raises:
        JobError: what is given is the address of another of Ray's servers.
    """
    where = "ray.address" if spec.ray.address else f"environment: {ENV_ADDRESS}"
    address = spec.ray.address or environment.get(ENV_ADDRESS) or DEFAULT_ADDRESS
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise JobError(
            f"{where}: {address!r} came; the job server's address begins with http:// or https://, and its port is "
            "the dashboard's, for example http://head:8265"
        )
    return address


def _variables(spec: JobSpec) -> dict[str, str]:
    """Of the entrypoint and of every task and actor that the job starts; the ranks of a training get the job's own
    from the spec instead."""
    variables = {} if spec.ranks else dict(spec.environment)
    variables[ENV_ID] = submission_id(spec)
    variables["RAY_JOB_STOP_WAIT_TIME_S"] = str(spec.stopping.grace_s + STOP_MARGIN_S)
    if spec.code is not None:
        variables |= {"PYTHONPATH": str(spec.code), "PYTHONSAFEPATH": "1"}
    for name, value in variables.items():
        if "$" in value:
            raise JobError(
                f"environment.{name}: {value!r} has a '$', which Ray replaces by what follows it is on each node; "
                "write the value out"
            )
    return variables


@contextmanager
def _server(address: str) -> Iterator[Any]:
    """A client of the job server; what it or the server says against us becomes a JobError."""
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    hint = "is the cluster up, and is this the dashboard's address? Give ray.address=http://HEAD:8265"
    try:
        socket.create_connection((parts.hostname or "", port), ANSWER_S).close()
        from ray.job_submission import JobSubmissionClient

        yield JobSubmissionClient(address)
    except OSError as error:
        raise JobError(f"ray.address: {address} does not answer ({error}); {hint}") from error
    except RuntimeError as error:  # the client's word for an answer that is not 200
        said = str(error).strip().splitlines() or ["no reason given"]
        raise JobError(f"ray.address: {address} refused: {said[-1][:DETAIL]}") from error


def _check_nodes(spec: JobSpec, client: Any) -> None:
    """Refuse a job that no node could ever hold a process of, where no autoscaler could add such a node."""
    answer = client._do_request("GET", "/api/v0/nodes?limit=10000&detail=0")
    status = client._do_request("GET", "/api/cluster_status")
    if answer.status_code != 200 or status.status_code != 200:
        return  # an older server; Ray itself will say that it waits
    nodes = [node for node in answer.json()["data"]["result"]["result"] if node["state"] == "ALIVE"]
    if _autoscales(status.json()):
        return
    needs, together = (
        spec.resources,
        1 if spec.ranks else spec.world,
    )  # on one node; ranks are placed one by one
    wants = {"CPU": needs.cpus_per_process * together, "GPU": needs.gpus_per_process * together}
    for (what, amount), field in zip(wants.items(), ("cpus_per_process", "gpus_per_process"), strict=True):
        most = max((node["resources_total"].get(what, 0.0) for node in nodes), default=0.0)
        if amount > most and (spec.ranks or needs.gpus_per_process):
            raise JobError(
                f"resources.{field}: {amount} asked for{' by all parts' if together > 1 else ''}, but no node of "
                f"{client.get_address()} has more than {most:g} ({len(nodes)} nodes are alive); lower it, or add "
                "such a node first"
            )


def _autoscales(status: Any) -> bool:
    """Whether the cluster may grow: without an autoscaler Ray names each node's type after the node."""
    report = (status.get("data") or {}).get("clusterStatus") or {}
    types = (report.get("autoscalerReport") or {}).get("nodeTypeMapping") or {}
    return any(name != f"node_{node}" for node, name in types.items())


def _free_id(wanted: str, taken: set[str]) -> str:
    """``wanted``, or with the first number that makes it new: a job that goes on is a new submission."""
    number, found = 1, wanted
    while found in taken:
        number += 1
        found = f"{wanted}.{number}"
    return found


def _status(details: Any) -> Status:
    state = STATES[str(details.status.value)]
    message = " ".join((details.message or "").split())[:DETAIL]
    if state == "failed" and details.driver_exit_code == EXIT_REQUEUE:
        return Status("preempted", "stopped on request; it goes on where it was")
    if state == "failed" and details.error_type in LOST:
        return Status("lost", message)
    return Status(state, message if state in ("queued", "failed") else "")
