"""How jobs stand, read from their objects and pods as the API server describes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cluster.spec import State, Status

Described = Mapping[str, Any]

_BROKEN = (
    "ImagePullBackOff",
    "ErrImagePull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
)
_ADVICE = {
    "ImagePullBackOff": "the image cannot be had: look at image and kubernetes.image_pull_secret",
    "ErrImagePull": "the image cannot be had: look at image and kubernetes.image_pull_secret",
    "InvalidImageName": "image is no name of an image",
    "CreateContainerConfigError": "a secret, or one of its keys, is not there",
}


def status_of(described: Described, pods: Sequence[Described]) -> Status:
    """How a job stands; ``pods`` are all of its own."""
    return _READERS[described["kind"]](described, pods)


def _by_conditions(described: Described, pods: Sequence[Described]) -> Status:
    """Job, JobSet and PyTorchJob: all say how they ended in conditions."""
    conditions = {
        item["type"]: item
        for item in described.get("status", {}).get("conditions") or ()
        if item.get("status") == "True"
    }
    for kinds, state in _ENDS:
        for kind in kinds:
            if kind in conditions:
                return Status(state, "" if state == "succeeded" else _because(conditions[kind]))
    spec = described.get("spec", {})
    if spec.get("suspend") or spec.get("runPolicy", {}).get("suspend"):
        return Status("queued", _suspended(described))
    return _by_pods(pods)


_ENDS: Sequence[tuple[tuple[str, ...], State]] = (
    (("Complete", "SuccessCriteriaMet", "Completed", "Succeeded"), "succeeded"),
    (("Failed", "FailureTarget"), "failed"),
)


def _ray(described: Described, pods: Sequence[Described]) -> Status:
    status = described.get("status", {})
    job, deployment = status.get("jobStatus", ""), status.get("jobDeploymentStatus", "")
    why = ": ".join(filter(None, (status.get("reason"), status.get("message"))))
    if job == "SUCCEEDED":
        return Status("succeeded")
    if deployment == "Failed" or (job in ("FAILED", "STOPPED") and deployment == "Complete"):
        return Status("failed", why or f"its Ray job is {job.lower()}")
    if deployment == "Suspended" or described.get("spec", {}).get("suspend"):
        return Status("queued", _suspended(described))
    if job == "RUNNING":
        return Status("running", "" if deployment == "Running" else deployment)
    return _by_pods(pods) if pods else Status("queued", deployment or "waits for KubeRay")


def _suspended(described: Described) -> str:
    queue = described.get("metadata", {}).get("labels", {}).get("kueue.x-k8s.io/queue-name")
    return f"waits in Kueue's queue {queue!r}" if queue else "is suspended"


def _by_pods(pods: Sequence[Described]) -> Status:
    """Running once a pod runs; before, why none does, from the first that says so."""
    details = [_trouble(pod) for pod in pods]
    detail = next(filter(None, details), "")
    running = [pod for pod in pods if _phase(pod) == "Running"]
    if running:
        waiting = sum(_phase(pod) == "Pending" for pod in pods)
        return Status("running", detail or (f"{waiting} of {len(pods)} pods wait" if waiting else ""))
    if not pods:
        return Status("queued", "has no pods yet")
    return Status("queued", detail or "its pods are being made")


def _phase(pod: Described) -> str:
    return str(pod.get("status", {}).get("phase", "Pending"))


def _trouble(pod: Described) -> str:
    """What keeps a pod from running, where something does."""
    status, name = pod.get("status", {}), pod.get("metadata", {}).get("name", "")
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        waiting = container.get("state", {}).get("waiting", {})
        if (reason := waiting.get("reason", "")) in _BROKEN:
            said = ": ".join(filter(None, (reason, waiting.get("message", ""))))
            advice = f"; {_ADVICE[reason]}" if reason in _ADVICE else ""
            return f"pod {name}: {said}{advice}"
        if container.get("name") == "wait" and "running" in container.get("state", {}):
            return "waits for the jobs that it comes after"
    for condition in status.get("conditions", ()):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"pod {name}: {_because(condition)}"
    return ""


def _because(condition: Described) -> str:
    return ": ".join(filter(None, (condition.get("reason", ""), condition.get("message", ""))))


_READERS: Mapping[str, Callable[[Described, Sequence[Described]], Status]] = {
    "Job": _by_conditions,
    "JobSet": _by_conditions,
    "PyTorchJob": _by_conditions,
    "RayJob": _ray,
}
