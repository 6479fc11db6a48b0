"""Asks a Kubernetes cluster through kubectl: access, namespace, kinds, rights, quota, volume, queue, account.

Only questions: the one POST asks whether something would be allowed. Kinds are looked up in the list of API
groups, which everybody with an account may read, and not among the definitions, which few may.
"""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cluster.checks.finding import Finding, Findings, ask
from cluster.spec import KubernetesOptions

ASK_S = 15.0
AT_ONCE = 8  # kubectl takes most of its time to start


@dataclass(frozen=True)
class Kind:
    """A kind of object that jobs may be made of. path: of its API group; remedy: where it is not there."""

    kind: str
    group: str
    version: str
    resource: str
    use: str
    remedy: str = ""

    @property
    def path(self) -> str:
        """Of its API group and version."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


KINDS = (
    Kind("job", "batch", "v1", "jobs", "jobs of one node"),
    Kind("jobset", "jobset.x-k8s.io", "v1alpha2", "jobsets", "trainings on several nodes", "install JobSet"),
    Kind("rayjob", "ray.io", "v1", "rayjobs", "preparation on Ray", "install the KubeRay operator"),
    Kind(
        "pytorchjob",
        "kubeflow.org",
        "v1",
        "pytorchjobs",
        "trainings as PyTorchJob",
        "install the training operator",
    ),
)
QUEUE_VERSIONS = ("v1beta2", "v1beta1")


class Kubectl:
    """One cluster, by its context; answers are the API's own JSON."""

    def __init__(self, context: str) -> None:
        self._words = [
            "kubectl",
            *([f"--context={context}"] if context else []),
            f"--request-timeout={ASK_S:g}s",
        ]

    def get(self, path: str) -> tuple[dict[str, Any], str]:
        """What is found at an API path, and why nothing is; one of them is empty."""
        answer = ask([*self._words, "get", "--raw", path], ASK_S * 2)
        return self._read(answer.out if answer.code == 0 else "", answer.why)

    def allowed(self, namespace: str, verb: str, group: str, resource: str) -> tuple[bool, str]:
        """Whether we may, as ``kubectl auth can-i`` asks it; and why that is not known."""
        attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": resource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = ask([*self._words, "create", "--raw", path, "-f", "-"], ASK_S * 2, json.dumps(review))
        found, why = self._read(answer.out if answer.code == 0 else "", answer.why)
        return bool(found.get("status", {}).get("allowed")), why

    def _read(self, text: str, why: str) -> tuple[dict[str, Any], str]:
        if not text:
            return {}, why
        try:
            found: dict[str, Any] = json.loads(text)
        except ValueError:
            return {}, "its answer is not JSON; is this the API server?"
        return found, ""


def check(options: KubernetesOptions) -> Findings:
    """Everything about the cluster that can be known without starting something."""
    if shutil.which("kubectl") is None:
        yield Finding(
            "kubernetes", "broken", "kubectl is not there", "install kubectl; jobs are sent with it"
        )
        return
    context = options.context or ask(["kubectl", "config", "current-context"]).out.strip()
    if not context:
        remedy = "give kubernetes.context, or kubectl config use-context NAME"
        yield Finding("kubernetes", "broken", "kubectl has no current context", remedy)
        return
    kubectl = Kubectl(context)
    version, why = kubectl.get("/version")
    if why:
        remedy = "kubectl config get-contexts lists what there is; check the network and your login"
        yield Finding("kubernetes", "broken", f"context {context}: {why}", remedy)
        return
    yield Finding(
        "kubernetes", "ok", f"context {context}: {version.get('gitVersion', 'an API server')} answers"
    )
    yield from _namespace(kubectl, options.namespace)
    yield from _kinds(kubectl, options)
    yield from _rights(kubectl, options.namespace)
    yield from _quota(kubectl, options.namespace)
    yield from _volume(kubectl, options)
    yield from _queue(kubectl, options)
    yield from _service_account(kubectl, options)


def _namespace(kubectl: Kubectl, namespace: str) -> Findings:
    _, why = kubectl.get(f"/api/v1/namespaces/{namespace}")
    if not why:
        yield Finding(f"namespace {namespace}", "ok", "is there")
    elif "forbidden" in why.lower():
        yield Finding(f"namespace {namespace}", "ok", "may not be looked at, which jobs do not need")
    else:
        yield Finding(f"namespace {namespace}", "broken", why, "make it, or set kubernetes.namespace")


def _kinds(kubectl: Kubectl, options: KubernetesOptions) -> Findings:
    for kind in KINDS:
        found, why = kubectl.get(kind.path)
        there = any(entry.get("name") == kind.resource for entry in found.get("resources", []))
        name = f"kind {kind.kind}"
        if there:
            yield Finding(name, "ok", f"{kind.group} {kind.version}, for {kind.use}")
        elif not kind.remedy or options.kind == kind.kind:
            yield Finding(
                name, "broken", why or "not there", kind.remedy or "is this the API server of a cluster?"
            )
        else:
            remedy = f"{kind.remedy}, if that is wanted"
            yield Finding(
                name, "warning", f"{kind.group} {kind.version} is not there, for {kind.use}", remedy
            )


def _rights(kubectl: Kubectl, namespace: str) -> Findings:
    needed = [
        ("create", "batch", "jobs"), ("delete", "batch", "jobs"), ("get", "batch", "jobs"),
        ("create", "", "services"), ("list", "", "pods"), ("get", "", "pods/log"),
    ]  # fmt: skip
    for kind in KINDS[1:]:
        if not kubectl.get(kind.path)[1]:
            needed += [(verb, kind.group, kind.resource) for verb in ("create", "delete", "get")]
    denied, unknown = [], ""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda right: kubectl.allowed(namespace, *right), needed))
    for (verb, _, resource), (allowed, why) in zip(needed, answers, strict=True):
        unknown = unknown or why
        if not allowed and not why:
            denied.append(f"{verb} {resource}")
    if unknown:
        yield Finding("rights", "warning", f"cannot be asked: {unknown}", "kubectl auth can-i create jobs")
    elif denied:
        remedy = "ask for a role with them; README, Kubernetes, lists all"
        yield Finding("rights", "broken", f"not allowed in {namespace}: {', '.join(denied)}", remedy)
    else:
        yield Finding("rights", "ok", f"all {len(needed)} that jobs need in {namespace}")


def _quota(kubectl: Kubectl, namespace: str) -> Findings:
    found, why = kubectl.get(f"/api/v1/namespaces/{namespace}/resourcequotas")
    if why:
        yield Finding(
            "quota", "warning", f"cannot be read: {why}", "ask who runs the cluster how much is yours"
        )
        return
    if not found.get("items"):
        yield Finding("quota", "ok", "none")
    for item in found.get("items", []):
        hard, used = (item.get("status", {}).get(part, {}) for part in ("hard", "used"))
        seen = ", ".join(f"{name} {used.get(name, '0')} of {limit}" for name, limit in sorted(hard.items()))
        full = [name for name, limit in hard.items() if name in used and used[name] == limit]
        name = f"quota {item['metadata']['name']}"
        if full:
            yield Finding(
                name, "warning", seen, f"{', '.join(full)}: nothing is left; jobs will wait or be refused"
            )
        else:
            yield Finding(name, "ok", seen)


def _volume(kubectl: Kubectl, options: KubernetesOptions) -> Findings:
    if not options.volume:
        remedy = "set kubernetes.volume to a PersistentVolumeClaim; folders of jobs must outlive their pods"
        yield Finding("volume", "warning", "none is given", remedy)
        return
    name = f"volume {options.volume}"
    found, why = kubectl.get(
        f"/api/v1/namespaces/{options.namespace}/persistentvolumeclaims/{options.volume}"
    )
    if why:
        yield Finding(name, "broken", why, "make the PersistentVolumeClaim, or correct kubernetes.volume")
        return
    phase, modes = found.get("status", {}).get("phase"), found.get("spec", {}).get("accessModes", [])
    if phase != "Bound":
        remedy = "kubectl describe pvc says why; with WaitForFirstConsumer it is bound by the first pod"
        yield Finding(name, "warning", f"is {phase}", remedy)
    if "ReadWriteMany" not in modes:
        remedy = "jobs of several nodes need ReadWriteMany; one node works with this"
        yield Finding(name, "warning", f"can be mounted {', '.join(modes)}", remedy)
    if phase == "Bound" and "ReadWriteMany" in modes:
        size = found["status"].get("capacity", {}).get("storage", "?")
        yield Finding(name, "ok", f"{size}, {', '.join(modes)}, mounted at {options.volume_path}")


def _queue(kubectl: Kubectl, options: KubernetesOptions) -> Findings:
    if not options.queue:
        return
    name, why = f"queue {options.queue}", ""
    for version in QUEUE_VERSIONS:
        path = f"/apis/kueue.x-k8s.io/{version}/namespaces/{options.namespace}/localqueues/{options.queue}"
        found, why = kubectl.get(path)
        if not why:
            cluster_queue = found.get("spec", {}).get("clusterQueue", "?")
            waiting = found.get("status", {}).get("pendingWorkloads", 0)
            yield Finding(name, "ok", f"of ClusterQueue {cluster_queue}, {waiting} waiting")
            return
    yield Finding(name, "broken", why, "make the LocalQueue (Kueue), or correct kubernetes.queue")


def _service_account(kubectl: Kubectl, options: KubernetesOptions) -> Findings:
    if not options.service_account:
        return
    name = f"service account {options.service_account}"
    _, why = kubectl.get(f"/api/v1/namespaces/{options.namespace}/serviceaccounts/{options.service_account}")
    if not why:
        yield Finding(name, "ok", "is there")
    elif "forbidden" in why.lower():
        yield Finding(name, "ok", "may not be looked at, which jobs do not need")
    else:
        yield Finding(name, "broken", why, "make it, or correct kubernetes.service_account")
