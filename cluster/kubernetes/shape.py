"""How a job looks on Kubernetes: its name there, its kind, how many pods it has and what each of them runs."""

from __future__ import annotations

import hashlib
import re
from typing import Literal

from cluster.spec import JobSpec

Kind = Literal["job", "jobset", "pytorchjob", "rayjob"]
Mode = Literal["alone", "part", "gang"]

MAX_NAME = 40  # a RayJob may have 47; JobSet makes hostnames NAME-node-0-INDEX of it, and those end at 63
RESOURCES: dict[Kind, str] = {  # as kubectl calls them
    "job": "jobs.batch",
    "jobset": "jobsets.jobset.x-k8s.io",
    "pytorchjob": "pytorchjobs.kubeflow.org",
    "rayjob": "rayjobs.ray.io",
}
OPERATORS: dict[Kind, str] = {
    "jobset": "JobSet",
    "pytorchjob": "the Kubeflow training operator",
    "rayjob": "KubeRay",
}


def name_of(job_id: str) -> str:
    """A job's id as a name that Services, label values and hostnames may have (DNS-1035, at most 40 characters).

    An id that has to be changed for it gets a digest, so that two ids never become one name.
    """
    if re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", job_id) and len(job_id) <= MAX_NAME:
        return job_id
    digest = hashlib.sha256(job_id.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    plain = re.sub(r"[^a-z0-9]+", "-", job_id.lower())[: MAX_NAME - len("j-") - len(digest) - 1].strip("-")
    return "-".join(filter(None, ("j", plain, digest)))


def kind_of(spec: JobSpec) -> Kind:
    """The kind of object that a job becomes."""
    if spec.kubernetes.kind != "auto":
        return spec.kubernetes.kind
    if spec.array or spec.resources.nodes == 1:
        return "job"
    return "jobset" if spec.ranks else "rayjob"


def mode_of(spec: JobSpec) -> Mode:
    """What each pod of a job runs; see the package's text."""
    if spec.array:
        return "part"
    return "gang" if spec.ranks and spec.resources.nodes > 1 else "alone"


def num_pods(spec: JobSpec) -> int:
    """Pods of a job that work; those of a Ray cluster count too."""
    return spec.array or spec.resources.nodes


def processes_per_pod(spec: JobSpec) -> int:
    """What a pod's resources are for: a part of an array is one process, whatever a node would hold."""
    return 1 if spec.array else spec.resources.processes_per_node
