"""What Kubernetes would refuse, or what could not work in a pod, said before anything is sent."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cluster import secret_values
from cluster.kubernetes.shape import kind_of
from cluster.spec import JobError, JobSpec

LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
LABEL_VALUE = r"([A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?)?"
LABEL_KEY = rf"({SUBDOMAIN}/)?[A-Za-z0-9]([-_.A-Za-z0-9]{{0,61}}[A-Za-z0-9])?"
VARIABLE = r"[-._a-zA-Z][-._a-zA-Z0-9]*"
OWN_PATHS = ("/", "/tmp", "/dev", "/dev/shm", "/home/castbank", "/proc", "/sys")  # that a mount would hide


@dataclass(frozen=True)
class Mount:
    """What a pod sees at ``inside``: the folder ``below`` of a claim, or of the node where claim is empty."""

    claim: str
    below: str
    inside: str
    read_only: bool


def check(spec: JobSpec) -> None:
    """Raise JobError, with the field, for the first thing about a job that cannot be."""
    _check_kind(spec)
    if not re.fullmatch(r"[^\s\x00-\x1f]+", spec.image):
        raise JobError(
            f"image: came {spec.image!r}; on Kubernetes every job runs in a container image: give image=NAME:TAG "
            "(cluster/templates/Containerfile makes one)"
        )
    options = spec.kubernetes
    for name, value, form in (
        ("namespace", options.namespace, LABEL),
        ("queue", options.queue, rf"({LABEL})?"),
        ("service_account", options.service_account, rf"({SUBDOMAIN})?"),
        ("image_pull_secret", options.image_pull_secret, rf"({SUBDOMAIN})?"),
        ("volume", options.volume, rf"({SUBDOMAIN})?"),
    ):
        if not re.fullmatch(form, value) or len(value) > 253:
            raise JobError(
                f"kubernetes.{name}: came {value!r}; a Kubernetes name is lower-case letters, digits and -"
            )
    for key, value in options.node_selector.items():
        if not re.fullmatch(LABEL_KEY, key) or not re.fullmatch(LABEL_VALUE, value):
            raise JobError(
                f"kubernetes.node_selector: came {key!r}: {value!r}; give a node's label and its value"
            )
    if not 1 <= options.run_as_user < 2**31:
        raise JobError(
            f"kubernetes.run_as_user: came {options.run_as_user}; pods never run as root: give the id of the user "
            "who may write the job's folder, from 1"
        )
    _check_memory(spec)
    _check_variables(spec)
    _check_seen(spec)


def mounts(spec: JobSpec) -> list[Mount]:
    """The volume, then ``spec.mounts``: HOST:CONTAINER[:ro], where HOST is a folder of the node (an absolute path)
    or CLAIM[/FOLDER] of a PersistentVolumeClaim.

    Raises:
        JobError: one cannot be read, or two are at the same place.
    """
    found = []
    if spec.kubernetes.volume:
        found.append(
            Mount(
                spec.kubernetes.volume,
                "",
                _inside(spec.kubernetes.volume_path, "kubernetes.volume_path"),
                False,
            )
        )
    for text in spec.mounts:
        host, _, rest = text.partition(":")
        inside, _, how = rest.partition(":")
        if how not in ("", "ro") or not host or ".." in PurePosixPath(host).parts:
            raise JobError(f"mounts: came {text!r}; give HOST:CONTAINER or HOST:CONTAINER:ro, without ..")
        claim, _, below = ("", "", host) if host.startswith("/") else host.partition("/")
        if claim and not re.fullmatch(SUBDOMAIN, claim):
            raise JobError(
                f"mounts: came {text!r}; HOST is an absolute path on the node, or CLAIM[/FOLDER] of a "
                "PersistentVolumeClaim"
            )
        found.append(
            Mount(claim, below.strip("/") if claim else below, _inside(inside, "mounts"), how == "ro")
        )
    places = [mount.inside for mount in found]
    for place in places:
        if places.count(place) > 1:
            raise JobError(
                f"mounts: {place!r} is given twice; each place in the container can hold one thing"
            )
    return found


def check_text(node: Any, where: str = "") -> None:
    """Raise JobError for text in a document that no API server takes: NUL, or what is not Unicode."""
    if isinstance(node, dict):
        for key, value in node.items():
            check_text(key, where)
            check_text(value, f"{where}.{key}" if where else str(key))
    elif isinstance(node, list):
        for value in node:
            check_text(value, where)
    elif isinstance(node, str):
        try:
            node.encode()
        except UnicodeEncodeError as error:
            raise JobError(f"{where}: came {node!r}, which is not Unicode text; change it") from error
        if "\0" in node:
            raise JobError(
                f"{where}: came {node!r}; a NUL character cannot be passed to a process; leave it out"
            )


def _check_kind(spec: JobSpec) -> None:
    kind, several = kind_of(spec), spec.resources.nodes > 1 and not spec.array
    wrong = {
        "pytorchjob": "" if spec.ranks and not spec.array else "a PyTorchJob runs trainings only",
        "rayjob": "a RayJob runs preparation jobs; a training of several processes is no Ray job here"
        if spec.ranks or spec.array
        else "",
    }.get(kind, "each pod would do all the work again" if several and not spec.ranks else "")
    if spec.ranks and spec.array:
        wrong = "a training cannot be an array"
    if wrong:
        raise JobError(
            f"kubernetes.kind: came {spec.kubernetes.kind!r} for a job with resources.nodes={spec.resources.nodes} "
            f"and array={spec.array}: {wrong}; leave kubernetes.kind=auto"
        )


def _check_memory(spec: JobSpec) -> None:
    shared, memory = spec.kubernetes.shared_memory_gib, spec.resources.memory_gib
    if not (math.isfinite(shared) and shared > 0):
        raise JobError(f"kubernetes.shared_memory_gib: came {shared}; give more than 0 (GiB)")
    if not (math.isfinite(memory) and memory >= 0):
        raise JobError(f"resources.memory_gib: came {memory}; give 0 for the cluster's default, or GiB")
    if 0 < memory <= shared:
        raise JobError(
            f"kubernetes.shared_memory_gib: came {shared:g}, of resources.memory_gib={memory:g}; what is in "
            "/dev/shm counts as the pod's memory: give the pod more or /dev/shm less"
        )


def _check_variables(spec: JobSpec) -> None:
    for section, names in (("environment", spec.environment), ("secrets", spec.secrets)):
        for name in names:
            if not re.fullmatch(VARIABLE, name):
                raise JobError(f"{section}: came {name!r}; a variable's name is letters, digits, _, - and .")
    secret_values.check(spec.secrets, ("kubernetes",), "kubernetes")
    for variable, reference in spec.secrets.items():
        secret, slash, key = secret_values.split(variable, reference)[1].partition("/")
        if not slash or not re.fullmatch(SUBDOMAIN, secret) or not re.fullmatch(r"[-._a-zA-Z0-9]+", key):
            raise JobError(f"secrets.{variable}: came {reference!r}; give kubernetes:SECRET/KEY")


def _check_seen(spec: JobSpec) -> None:
    """The job's folder, and where its command runs, must be something that pods see."""
    places = [Path(mount.inside) for mount in mounts(spec)]
    for name, path in (("folder", spec.folder), ("workdir", spec.workdir)):
        if any(path == place or place in path.parents for place in places):
            continue
        if not spec.kubernetes.volume:
            raise JobError(
                f"kubernetes.volume: is empty, and nothing that is mounted holds {name} {str(path)!r}; give the "
                "PersistentVolumeClaim that does"
            )
        raise JobError(
            f"{name}: {str(path)!r} is not below kubernetes.volume_path={spec.kubernetes.volume_path} or a mount, "
            f"so that pods do not see it; give a {name} there"
        )


def _inside(path: str, field: str) -> str:
    pure = PurePosixPath(path)
    if not pure.is_absolute() or ".." in pure.parts or ":" in path or str(pure) in OWN_PATHS:
        raise JobError(
            f"{field}: came {path!r}; the place in the container is an absolute path without .. and :, and none of "
            f"{', '.join(OWN_PATHS)}"
        )
    return str(pure)
