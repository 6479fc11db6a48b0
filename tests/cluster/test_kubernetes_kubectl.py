"""Submitting, asking and cancelling: the real kubectl, an emulated API server, and what its errors mean."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.job_folder import JobFolder
from cluster.kubernetes.kubectl import Cluster
from cluster.kubernetes.launcher import MANY, KubernetesLauncher
from cluster.kubernetes.states import status_of
from cluster.spec import JobError, JobSpec, KubernetesOptions, Resources, Status
from tests.cluster.kubernetes_api import Api, api_server, kubeconfig
from tests.cluster.test_kubernetes import TRAINING, job
from tests.cluster.test_kubernetes_hostile import hostile_jobs

RECENT = (
    1,
    30,
)  # older ones check fields by themselves, with descriptions that the emulated server does not have


def kubectl_version() -> tuple[int, int]:
    if shutil.which("kubectl") is None:
        return 0, 0
    command = ["kubectl", "version", "--client=true", "--output=json"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    version = json.loads(said)["clientVersion"]
    return int(version["major"]), int(version["minor"].rstrip("+"))


needs_kubectl = pytest.mark.skipif(
    kubectl_version() < RECENT, reason=f"kubectl {'.'.join(map(str, RECENT))} or newer is not installed"
)


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setenv("HOME", str(tmp_path))  # kubectl keeps what it has discovered there
    with api_server(tmp_path) as made:
        monkeypatch.setenv("KUBECONFIG", str(made.kubeconfig))
        made.add_claim("shared")
        yield made


def local(tmp_path: Path, spec: JobSpec, kind: str = "auto", **options: Any) -> JobSpec:
    """A job whose folder can be written here too."""
    (tmp_path / "run" / "job").mkdir(parents=True, exist_ok=True)
    settings = {
        "volume": "shared",
        "namespace": "films",
        "volume_path": str(tmp_path),
        "kind": kind,
        **options,
    }
    kubernetes = KubernetesOptions(**settings)
    return replace(spec, folder=tmp_path / "run", workdir=tmp_path, code=None, kubernetes=kubernetes)


@needs_kubectl
@pytest.mark.parametrize(
    ("kind", "spec", "plural"),
    [
        ("job", job(array=3), "jobs"),
        ("job", job(ranks=True, resources=TRAINING), "jobs"),
        ("jobset", job(ranks=True, resources=TRAINING), "jobsets"),
        ("pytorchjob", job(ranks=True, resources=TRAINING), "pytorchjobs"),
        ("rayjob", job(resources=Resources(nodes=3)), "rayjobs"),
    ],
)
def test_a_job_goes_in_is_asked_after_and_is_cancelled(
    api: Api, tmp_path: Path, kind: str, spec: JobSpec, plural: str
) -> None:
    spec, launcher = local(tmp_path, spec, kind), KubernetesLauncher()
    scheduler_id = launcher.submit(spec, [])
    held = api.objects[plural, "faces-3f2a"]
    (written,) = list(yaml.safe_load_all(JobFolder(spec.folder).script.read_text()))[:1]
    assert held["spec"] == written["spec"]
    if (service := api.objects.get(("services", "faces-3f2a"))) is not None:
        assert service["metadata"]["ownerReferences"][0]["uid"] == held["metadata"]["uid"]
    assert launcher.states({scheduler_id: spec})[scheduler_id].state == "queued"
    api.add_pod("faces-3f2a", "faces-3f2a-0", {"phase": "Running"})
    if kind == "rayjob":
        held["status"] = {"jobStatus": "RUNNING", "jobDeploymentStatus": "Running"}
    assert launcher.states({scheduler_id: spec}) == {scheduler_id: Status("running")}
    launcher.cancel(spec, scheduler_id)
    assert (plural, "faces-3f2a") not in api.objects
    assert launcher.states({scheduler_id: spec}) == {scheduler_id: Status("running", "is being ended")}
    del api.objects["pods", "faces-3f2a-0"]
    assert launcher.states({scheduler_id: spec})[scheduler_id].state == "unknown"
    JobFolder(spec.folder).cancelled.touch()
    assert launcher.states({scheduler_id: spec}) == {scheduler_id: Status("cancelled")}
    launcher.cancel(spec, scheduler_id)


@needs_kubectl
def test_many_jobs_are_one_question(api: Api, tmp_path: Path) -> None:
    launcher, jobs = KubernetesLauncher(), {}
    for number in range(MANY + 2):
        spec = local(tmp_path, job(id=f"many-{number}"))
        jobs[f"jobs.batch/many-{number}"] = spec
        if number < 3:
            launcher.submit(spec, [])
    for asked in (dict(list(jobs.items())[:5]), jobs):
        api.asked.clear()
        states = launcher.states(asked)
        assert [status.state for status in states.values()] == ["queued"] * 3 + ["unknown"] * (len(asked) - 3)
        assert len([line for line in api.asked if "labelSelector" in line]) == 2  # jobs, pods


@needs_kubectl
def test_a_job_that_is_there_is_not_made_twice_and_one_that_has_ended_makes_room(
    api: Api, tmp_path: Path
) -> None:
    spec, launcher = local(tmp_path, job()), KubernetesLauncher()
    scheduler_id = launcher.submit(spec, [])
    with pytest.raises(
        JobError, match=r"faces-3f2a is in the cluster already, as jobs.batch/faces-3f2a, and queued"
    ):
        launcher.submit(spec, [])
    ended = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "too often"}
    api.objects["jobs", "faces-3f2a"]["status"] = {"conditions": [ended]}
    assert launcher.states({scheduler_id: spec})[scheduler_id] == Status(
        "failed", "BackoffLimitExceeded: too often"
    )
    assert launcher.submit(spec, []) == scheduler_id
    assert "status" not in api.objects["jobs", "faces-3f2a"]


@needs_kubectl
def test_what_was_made_is_removed_when_the_rest_is_refused(api: Api, tmp_path: Path) -> None:
    spec = local(tmp_path, job(ranks=True, resources=TRAINING), "job")
    api.objects["services", "faces-3f2a"] = {"metadata": {"name": "faces-3f2a"}}
    with pytest.raises(JobError):  # there is one, and the emulated server cannot replace it
        KubernetesLauncher().submit(spec, [])
    assert ("jobs", "faces-3f2a") not in api.objects


@needs_kubectl
def test_kubectl_reads_hostile_objects_as_they_were_meant(api: Api, tmp_path: Path) -> None:
    """Another YAML parser than PyYAML: that of Kubernetes itself."""
    texts = [text for _, text in hostile_jobs()]
    (tmp_path / "all.yaml").write_text("\n".join(texts), encoding="utf-8")
    command = ["kubectl", "create", "--dry-run=client", "--validate=false", "--output=json"]
    done = subprocess.run([*command, f"--filename={tmp_path / 'all.yaml'}"], capture_output=True, check=True)
    wanted = [document for text in texts for document in yaml.safe_load_all(text)]
    found: list[Any] = []
    rest = done.stdout.decode().strip()
    while rest:
        document, end = json.JSONDecoder().raw_decode(rest)
        found += document["items"] if document["kind"] == "List" else [document]
        rest = rest[end:].strip()
    assert found == wanted


@needs_kubectl
@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (
            (
                403,
                "Forbidden",
                'jobs.batch "x" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=8',
            ),
            r"resources: quota 'gpus' of namespace 'films' is used up",
        ),
        (
            (403, "Forbidden", 'User "me" cannot create resource'),
            r"kubernetes.namespace: the cluster does not let you",
        ),
        (
            (401, "Unauthorized", "Unauthorized"),
            r"kubernetes.context: the cluster does not accept your credentials",
        ),
        ((404, "NotFound", 'namespaces "films" not found'), r"kubernetes.namespace: came 'films'"),
        ((422, "Invalid", 'Job.batch "x" is invalid: spec: Required value'), r"spec: Required value"),
    ],
)
def test_a_refusal_says_what_to_do(
    api: Api, tmp_path: Path, refusal: tuple[int, str, str], said: str
) -> None:
    api.refuse["POST"] = refusal
    with pytest.raises(JobError, match=said):
        KubernetesLauncher().submit(local(tmp_path, job()), [])


@needs_kubectl
def test_what_the_cluster_lacks_is_named(api: Api, tmp_path: Path) -> None:
    api.groups.remove("jobset.x-k8s.io/v1alpha2")
    training = local(tmp_path, job(ranks=True, resources=TRAINING))
    with pytest.raises(JobError, match=r"kubernetes.kind: JobSet is not installed"):
        KubernetesLauncher().submit(training, [])
    with pytest.raises(JobError, match=r"kubernetes.kind: JobSet is not installed"):
        KubernetesLauncher().states({"x": training})
    with pytest.raises(
        JobError, match=r"kubernetes.volume: namespace 'films' has no PersistentVolumeClaim 'none'"
    ):
        KubernetesLauncher().submit(local(tmp_path, job(), volume="none"), [])
    with pytest.raises(JobError, match=r"mounts: namespace 'films' has no PersistentVolumeClaim 'clips'"):
        KubernetesLauncher().submit(local(tmp_path, job(mounts=("clips:/clips",))), [])
    with pytest.raises(
        JobError, match=r"kubernetes.context: came 'moon', which the kubeconfig does not have"
    ):
        KubernetesLauncher().submit(local(tmp_path, job(), context="moon"), [])


@needs_kubectl
def test_no_cluster_and_one_that_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = local(tmp_path, job())
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(JobError, match=r"kubernetes.context: kubectl has no cluster"):
        KubernetesLauncher().submit(spec, [])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # nobody listens
        (tmp_path / "down").write_text(kubeconfig(free.getsockname()[1]), encoding="utf-8")
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "down"))
        with pytest.raises(JobError, match=r"kubernetes.context: the cluster cannot be reached"):
            KubernetesLauncher().states({"jobs.batch/x": spec})


def test_without_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JobError, match=r"kubectl is not on PATH; install it"):
        KubernetesLauncher().states({"jobs.batch/x": job()})


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ('error: context "x" does not exist', "kubernetes.context: came 'c'"),
        ('error: no context exists with the name: "x"', "kubernetes.context: came 'c'"),
        ("error: current-context is not set", "kubernetes.context: kubectl has no cluster"),
        (
            "The connection to the server localhost:8080 was refused - did you specify the right host or port?",
            "kubernetes.context: kubectl has no cluster",
        ),
        (
            "Unable to connect to the server: dial tcp: lookup k8s.example on 10.0.0.2:53: no such host",
            "kubernetes.context: the cluster cannot be reached",
        ),
        ("Unable to connect to the server: net/http: TLS handshake timeout", "cannot be reached"),
        ("error: You must be logged in to the server (Unauthorized)", "does not accept your credentials"),
        (
            'error: unable to recognize "STDIN": no matches for kind "RayJob" in version "ray.io/v1"',
            "KubeRay is not",
        ),
        (
            'error: resource mapping not found for name: "x" namespace: "" from "STDIN": no matches for kind '
            '"PyTorchJob" in version "kubeflow.org/v1"\nensure CRDs are installed first',
            "the training operator is not",
        ),
        ('error: the server doesn\'t have a resource type "jobsets"', "JobSet is not installed"),
        (
            'Error from server (NotFound): error when creating "STDIN": namespaces "n" not found',
            "kubernetes.namespace",
        ),
        (
            'Error from server (Forbidden): "x" is forbidden: no PriorityClass with name castbank-high was found',
            "priority: the cluster has no PriorityClass 'castbank-high'",
        ),
        ("something new\nin two lines", "kubernetes: kubectl said: something new in two lines"),
    ],
)
def test_what_kubectl_says_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, meant: str
) -> None:
    """Recorded words of kubectl 1.20 to 1.32, said by a stand-in."""
    stand_in = tmp_path / "kubectl"
    (tmp_path / "words").write_text(said, encoding="utf-8")
    stand_in.write_text(f"#!/bin/sh\ncat '{tmp_path}/words' >&2\nexit 1\n", encoding="utf-8")
    stand_in.chmod(stand_in.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(JobError) as raised:
        Cluster("c", "n").ask("get", "pods")
    assert meant in str(raised.value)


def conditions(*types: str) -> dict[str, Any]:
    return {
        "conditions": [{"type": kind, "status": "True", "reason": "Why", "message": "so"} for kind in types]
    }


def pod(phase: str, **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "status": {"phase": phase, **status}}


def waiting(reason: str) -> dict[str, Any]:
    return pod("Pending", containerStatuses=[{"name": "job", "state": {"waiting": {"reason": reason}}}])


UNSCHEDULED = pod(
    "Pending",
    conditions=[
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    ],
)
AFTER = pod("Pending", initContainerStatuses=[{"name": "wait", "state": {"running": {}}}])


@pytest.mark.parametrize(
    ("kind", "described", "pods", "status"),
    [
        ("Job", {"status": conditions("Complete")}, [], Status("succeeded")),
        ("Job", {"status": conditions("FailureTarget")}, [pod("Running")], Status("failed", "Why: so")),
        ("Job", {"status": {}}, [], Status("queued", "has no pods yet")),
        ("Job", {"status": {}}, [UNSCHEDULED], Status("queued", "pod p: Unschedulable: 0/3 nodes")),
        ("Job", {"status": {}}, [AFTER], Status("queued", "waits for the jobs that it comes after")),
        ("Job", {"status": {}}, [pod("Pending")], Status("queued", "its pods are being made")),
        ("Job", {"status": {}}, [pod("Running"), pod("Pending")], Status("running", "1 of 2 pods wait")),
        ("JobSet", {"status": conditions("StartupPolicyCompleted", "Completed")}, [], Status("succeeded")),
        ("JobSet", {"status": conditions("Failed")}, [], Status("failed", "Why: so")),
        ("PyTorchJob", {"status": conditions("Created", "Running", "Succeeded")}, [], Status("succeeded")),
        ("PyTorchJob", {"spec": {"runPolicy": {"suspend": True}}}, [], Status("queued", "is suspended")),
        (
            "RayJob",
            {"status": {"jobStatus": "SUCCEEDED", "jobDeploymentStatus": "Running"}},
            [],
            Status("succeeded"),
        ),
        (
            "RayJob",
            {"status": {"jobStatus": "FAILED", "jobDeploymentStatus": "Retrying"}},
            [],
            Status("queued", "Retrying"),
        ),
        (
            "RayJob",
            {
                "status": {
                    "jobStatus": "FAILED",
                    "jobDeploymentStatus": "Failed",
                    "reason": "AppFailed",
                    "message": "x",
                }
            },
            [],
            Status("failed", "AppFailed: x"),
        ),
        (
            "RayJob",
            {"status": {"jobDeploymentStatus": "Initializing"}},
            [],
            Status("queued", "Initializing"),
        ),
    ],
)
def test_how_jobs_stand(
    kind: str, described: dict[str, Any], pods: list[dict[str, Any]], status: Status
) -> None:
    assert status_of({"kind": kind, "metadata": {}, **described}, pods) == status


def test_an_image_that_cannot_be_had_and_a_queue_are_said() -> None:
    status = status_of({"kind": "Job", "status": {}}, [waiting("ImagePullBackOff")])
    assert status.state == "queued" and "ImagePullBackOff" in status.detail and "image" in status.detail
    assert "secret" in status_of({"kind": "JobSet"}, [waiting("CreateContainerConfigError")]).detail
    metadata = {"labels": {"kueue.x-k8s.io/queue-name": "team"}}
    for kind in ("Job", "JobSet", "RayJob"):
        queued = status_of({"kind": kind, "metadata": metadata, "spec": {"suspend": True}}, [])
        assert queued == Status("queued", "waits in Kueue's queue 'team'")
