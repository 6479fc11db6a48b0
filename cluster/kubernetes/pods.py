"""The pod that every kind of job is made of: one container, what it may do, what it sees, how it is watched.

Pods run as ``kubernetes.run_as_user``, never as root, on a read-only root file system; only ``/tmp`` and the home
folder can be written, besides what is mounted. They pass the "restricted" pod security standard, except where
``mounts`` names a folder of the node.
"""

from __future__ import annotations

import shlex
from typing import Any

from cluster.kubernetes.checks import mounts
from cluster.kubernetes.shape import mode_of, name_of, processes_per_pod
from cluster.secret_values import split
from cluster.spec import JobSpec

HOME = "/home/castbank"
PYTHON = "python3"  # of the image; the submitter's interpreter, the first word of a command, is not in it
POD = "cluster.kubernetes.pod"
MASTER_PORT = 29500
END_S = (
    15  # from the end of the processes, grace_s after the signal, to that of the pod: the outcome is written
)
PROBE_S = 30  # between two looks at a pod
INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
PRIORITY_CLASSES = {
    1: "castbank-high",
    -1: "castbank-low",
}  # by the sign of priority; the cluster's to define

Document = dict[str, Any]


def template(spec: JobSpec, container: str, master: str = "") -> Document:
    """The pod template of a job that Kubernetes itself restarts: the container runs ``pod`` and is probed.

    Args:
        container: its name.
        master: DNS name of the first pod, where the pods of a job have to find each other.
    """
    made = _container(spec, container, own_command("run", spec))
    if mode_of(spec) == "gang" and master:
        made["env"] += [
            {"name": "MASTER_ADDR", "value": master},
            {"name": "MASTER_PORT", "value": str(MASTER_PORT)},
            {"name": "NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": INDEX}}},
        ]
    probe = {
        "exec": {"command": own_command("alive", spec)},
        "periodSeconds": PROBE_S,
        "timeoutSeconds": 15,
        "failureThreshold": 3,  # the pod's own watch, which ends a hung attempt at hang_s, comes first
    }
    made |= {"startupProbe": probe | {"periodSeconds": 10, "failureThreshold": 30}, "livenessProbe": probe}
    asks = "kill -TERM 1; while kill -0 1 2>/dev/null; do sleep 0.2; done"
    made["lifecycle"] = {"preStop": {"exec": {"command": ["/bin/sh", "-c", asks]}}}
    return _pod(spec, made)


def ray_template(spec: JobSpec, head: bool) -> Document:
    """The pod template of a Ray node; KubeRay starts Ray in it, adds its own probes, and restarts it."""
    made = _container(spec, "ray-head" if head else "ray-worker", None)
    made["env"].append(
        {"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": str(spec.stopping.grace_s)}
    )  # default: 3
    if head:
        made["lifecycle"] = {"preStop": {"exec": {"command": own_command("stop", spec)}}}
    pod = _pod(spec, made)
    del pod["spec"]["restartPolicy"]
    if not head:
        pod["spec"].pop("initContainers", None)
    return pod


def own_command(verb: str, spec: JobSpec) -> list[str]:
    """What a container runs of ours."""
    return [PYTHON, "-P", "-m", POD, verb, _literal(str(spec.folder))]


def entrypoint(spec: JobSpec) -> str:
    """What a RayJob runs on the head; a shell reads it, and nothing is expanded."""
    return shlex.join([PYTHON, "-P", "-m", POD, "run", str(spec.folder)])


def labels(spec: JobSpec) -> dict[str, str]:
    """Of every object of a job; ``castbank.job`` is what its pods are found by."""
    return {
        "app.kubernetes.io/name": "castbank",
        "app.kubernetes.io/instance": name_of(spec.id),
        "app.kubernetes.io/component": "training" if spec.ranks else "preparation",
        "app.kubernetes.io/managed-by": "castbank",
        "castbank.job": name_of(spec.id),
    }


def _pod(spec: JobSpec, container: Document) -> Document:
    options = spec.kubernetes
    volumes: list[Document] = [
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _mebibytes(options.shared_memory_gib)}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "home", "emptyDir": {}},
    ]
    volumes += [volume for volume, _ in _mounted(spec)]
    inner: Document = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": spec.stopping.grace_s + END_S,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": options.run_as_user,
            "runAsGroup": options.run_as_user,
            "fsGroup": options.run_as_user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **({"initContainers": [_waiting(spec, container)]} if spec.after else {}),
        "containers": [container],
        "volumes": _unique(volumes),
    }
    if spec.priority:
        inner["priorityClassName"] = PRIORITY_CLASSES[1 if spec.priority > 0 else -1]
    if options.service_account:
        inner["serviceAccountName"] = options.service_account
    if options.image_pull_secret:
        inner["imagePullSecrets"] = [{"name": options.image_pull_secret}]
    if options.node_selector:
        inner["nodeSelector"] = dict(sorted(options.node_selector.items()))
    metadata: Document = {"labels": labels(spec)}
    if not spec.preemptible:
        metadata["annotations"] = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
    return {"metadata": metadata, "spec": inner}


def _container(spec: JobSpec, name: str, command: list[str] | None) -> Document:
    made: Document = {"name": name, "image": spec.image, "imagePullPolicy": "IfNotPresent"}
    if command is not None:
        made["command"] = command
    resources = _resources(spec)
    return made | {
        "workingDir": str(spec.workdir),
        "env": _environment(spec),
        "resources": {"requests": resources, "limits": dict(resources)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "shm", "mountPath": "/dev/shm"},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "home", "mountPath": HOME},
            *(mount for _, mount in _mounted(spec)),
        ],
    }


def _waiting(spec: JobSpec, container: Document) -> Document:
    """Holds the pod until the jobs of ``spec.after`` have succeeded; it needs next to nothing meanwhile, but the
    pod's resources are held for it."""
    little = {"cpu": "100m", "memory": "128Mi"}
    kept = ("image", "imagePullPolicy", "workingDir", "securityContext", "volumeMounts")
    ours = [item for item in container["env"] if item["name"] == "HOME" or item["name"].startswith("PYTHON")]
    return {
        "name": "wait",
        "command": own_command("wait", spec),
        **{key: container[key] for key in kept},
        "env": ours,
        "resources": {"requests": little, "limits": dict(little)},
    }


def _environment(spec: JobSpec) -> list[Document]:
    values = {name: _literal(value) for name, value in spec.environment.items() if name not in spec.secrets}
    values |= {"HOME": HOME, "PYTHONUNBUFFERED": "1"}
    if spec.code is not None:
        values |= {"PYTHONPATH": _literal(str(spec.code)), "PYTHONSAFEPATH": "1"}
    made: list[Document] = [{"name": name, "value": value} for name, value in sorted(values.items())]
    for variable, reference in sorted(spec.secrets.items()):
        secret, _, key = split(variable, reference)[1].partition("/")
        if variable not in values:
            made.append({"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
    return made


def _resources(spec: JobSpec) -> dict[str, str]:
    each, wanted = processes_per_pod(spec), spec.resources
    made = {"cpu": str(wanted.cpus_per_process * each)}
    if wanted.memory_gib:
        made["memory"] = _mebibytes(wanted.memory_gib)
    if wanted.gpus_per_process:
        made["nvidia.com/gpu"] = str(wanted.gpus_per_process * each)
    return made


def _mounted(spec: JobSpec) -> list[tuple[Document, Document]]:
    """Volume and mount of everything that a pod sees; a claim that is mounted twice is one volume."""
    made, names = [], dict[tuple[str, str], str]()
    for mount in mounts(spec):
        source = (mount.claim, "" if mount.claim else mount.below)
        name = names.setdefault(source, f"data-{len(names)}")
        volume: Document = {"name": name}
        if mount.claim:
            volume["persistentVolumeClaim"] = {"claimName": mount.claim}
        else:
            volume["hostPath"] = {"path": mount.below, "type": "Directory"}
        inside: Document = {"name": name, "mountPath": mount.inside}
        if mount.claim and mount.below:
            inside["subPath"] = mount.below
        if mount.read_only:
            inside["readOnly"] = True
        made.append((volume, inside))
    return made


def _unique(volumes: list[Document]) -> list[Document]:
    return list({volume["name"]: volume for volume in volumes}.values())


def _mebibytes(gib: float) -> str:
    return f"{max(1, round(gib * 1024))}Mi"


def _literal(text: str) -> str:
    """``text`` where Kubernetes would replace ``$(NAME)``: in commands, arguments and values of variables."""
    return text.replace("$", "$$")
