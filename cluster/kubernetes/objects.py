"""The objects that a job becomes: an Indexed Job, a JobSet, a PyTorchJob or a RayJob, and what goes with it.

Exit codes of a pod (``pod`` makes them): 2, 3 and 70 end the job, 75 lets the pod be made anew without being
counted as a failure, and so does what is not its own doing (``DisruptionTarget``: drained, preempted, evicted); all
others count. ``retry`` in the job's spec is followed in the pods; what is set here bounds what the pods cannot see,
such as one that is killed for its memory. Kubernetes waits 10 s, 20 s, 40 s ... between pods, which cannot be set.
"""

from __future__ import annotations

from typing import Any

from cluster.kubernetes.pods import Document, entrypoint, labels, ray_template, template
from cluster.kubernetes.shape import Kind, kind_of, mode_of, name_of, num_pods, processes_per_pod
from cluster.spec import EXIT_EMPTY, EXIT_INPUT, EXIT_REQUEUE, JobSpec

EXIT_FINAL = 70  # EX_SOFTWARE: the job has failed for good, whatever its command's own code was
EXIT_RETRY_PYTORCH = 138  # the training operator starts pods anew for codes from 128 on only
KEPT_S = 7 * 24 * 3600  # an ended job is shown by kubectl for a week; its folder stays
NODE = "node"  # the replicated job of a JobSet
OBJECT_STORE = 0.9  # of /dev/shm; Ray would take a share of all memory and spill to /tmp


def documents(spec: JobSpec) -> list[Document]:
    """The job's own object, then what else it needs."""
    kind = kind_of(spec)
    made = {"job": _job, "jobset": _jobset, "pytorchjob": _pytorchjob, "rayjob": _rayjob}[kind](spec)
    if kind == "job" and mode_of(spec) == "gang":
        return [made, _service(spec)]
    return [made]


def master_host(spec: JobSpec, kind: Kind) -> str:
    """The DNS name of the first pod of a training on several nodes."""
    name = name_of(spec.id)
    first = f"{name}-{NODE}-0-0" if kind == "jobset" else f"{name}-0"
    return f"{first}.{name}.{spec.kubernetes.namespace}.svc"


def deadline_s(spec: JobSpec) -> dict[str, int]:
    """When Kubernetes asks the pods to stop: grace_s before the time limit is up, where there is one."""
    limit_s = spec.resources.time_limit_min * 60
    return {"activeDeadlineSeconds": max(1, limit_s - spec.stopping.grace_s)} if limit_s else {}


def _job(spec: JobSpec) -> Document:
    made = _head("batch/v1", "Job", spec)
    made["spec"] = _suspended(spec) | {"ttlSecondsAfterFinished": KEPT_S} | _job_spec(spec, "job")
    if mode_of(spec) == "gang":
        made["spec"]["template"]["spec"]["subdomain"] = name_of(spec.id)
    return made


def _job_spec(spec: JobSpec, kind: Kind) -> Document:
    several = num_pods(spec)
    part = mode_of(spec) == "part"
    end = "FailIndex" if part else "FailJob"
    again = 0 if kind == "jobset" else spec.retry.max_failures - 1  # a JobSet starts all of them anew instead
    codes = [EXIT_INPUT, EXIT_EMPTY, EXIT_FINAL]
    return {
        "completions": several,
        "parallelism": several,
        "completionMode": "Indexed",
        ("backoffLimitPerIndex" if part else "backoffLimit"): again,
        "podReplacementPolicy": "Failed",  # the old pod is gone before the new one writes
        "podFailurePolicy": {
            "rules": [
                {"action": end, "onExitCodes": {"operator": "In", "values": codes}},
                {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [EXIT_REQUEUE]}},
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]
        },
        **deadline_s(spec),
        "template": template(spec, "job", master_host(spec, kind)),
    }


def _jobset(spec: JobSpec) -> Document:
    made = _head("jobset.x-k8s.io/v1alpha2", "JobSet", spec)
    rule = {
        "name": "forGood",
        "action": "FailJobSet",
        "onJobFailureReasons": ["PodFailurePolicy", "DeadlineExceeded"],
    }
    made["spec"] = _suspended(spec) | {
        "ttlSecondsAfterFinished": KEPT_S,
        "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
        "successPolicy": {"operator": "All"},
        "failurePolicy": {"maxRestarts": spec.retry.max_failures - 1, "rules": [rule]},
        "replicatedJobs": [
            {
                "name": NODE,
                "replicas": 1,
                "template": {"metadata": {"labels": labels(spec)}, "spec": _job_spec(spec, "jobset")},
            }
        ],
    }
    return made


def _pytorchjob(spec: JobSpec) -> Document:
    """The operator sets MASTER_ADDR, MASTER_PORT and, as RANK, the pod's index; ``pod`` makes ranks of it."""
    made = _head("kubeflow.org/v1", "PyTorchJob", spec)

    def replicas(count: int) -> Document:
        pod = template(spec, "pytorch")
        del pod["spec"]["restartPolicy"]  # the operator's affair
        return {"replicas": count, "restartPolicy": "ExitCode", "template": pod}

    several = spec.resources.nodes
    workers = {"Worker": replicas(several - 1)} if several > 1 else {}
    made["spec"] = {
        "runPolicy": {
            "cleanPodPolicy": "Running",
            "ttlSecondsAfterFinished": KEPT_S,
            "backoffLimit": spec.retry.max_failures - 1,
            **_suspended(spec),
            **deadline_s(spec),
        },
        "nprocPerNode": str(processes_per_pod(spec)),
        "pytorchReplicaSpecs": {"Master": replicas(1), **workers},
    }
    return made


def _rayjob(spec: JobSpec) -> Document:
    """The head is one of the nodes; HTTPMode spares a third kind of pod that only submits.

    KubeRay knows no exit codes: whatever ends the supervisor is tried again in a new cluster, backoffLimit times;
    there it ends at once where the outcome of the job says that it has failed for good.
    """
    made = _head("ray.io/v1", "RayJob", spec)
    several = spec.resources.nodes
    store = {"object-store-memory": str(int(spec.kubernetes.shared_memory_gib * OBJECT_STORE * 2**30))}
    cluster: Document = {
        "headGroupSpec": {
            "rayStartParams": {"dashboard-host": "0.0.0.0"} | store,
            "template": ray_template(spec, head=True),
        }
    }
    if several > 1:
        cluster["workerGroupSpecs"] = [
            {
                "groupName": "workers",
                "replicas": several - 1,
                "minReplicas": several - 1,
                "maxReplicas": several - 1,
                "rayStartParams": store,
                "template": ray_template(spec, head=False),
            }
        ]
    made["spec"] = _suspended(spec) | {
        "entrypoint": entrypoint(spec),
        "submissionMode": "HTTPMode",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 0,
        "backoffLimit": spec.retry.max_failures - 1,
        **deadline_s(spec),
        "rayClusterSpec": cluster,
    }
    return made


def _service(spec: JobSpec) -> Document:
    """Gives the pods of an Indexed Job names that they can find each other by, ready or not."""
    made = _head("v1", "Service", spec)
    made["spec"] = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {"castbank.job": name_of(spec.id)},
    }
    return made


def _head(version: str, kind: str, spec: JobSpec) -> dict[str, Any]:
    queue = {"kueue.x-k8s.io/queue-name": spec.kubernetes.queue} if spec.kubernetes.queue else {}
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {
            "name": name_of(spec.id),
            "namespace": spec.kubernetes.namespace,
            "labels": labels(spec) | ({} if kind == "Service" else queue),
            "annotations": {
                "castbank/id": spec.id,
                "castbank/name": spec.name,
                "castbank/folder": str(spec.folder),
            },
        },
    }


def _suspended(spec: JobSpec) -> dict[str, bool]:
    """With a queue, a job waits until Kueue lets it go; without Kueue it waits for ever, and its status says so."""
    return {"suspend": True} if spec.kubernetes.queue else {}
