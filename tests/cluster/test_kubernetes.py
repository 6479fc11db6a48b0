"""What is given to Kubernetes, against golden text, schemas and the API server's rules."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import ValidationError

from cluster.kubernetes.launcher import KubernetesLauncher
from cluster.kubernetes.shape import kind_of, name_of
from cluster.launchers import launcher, starter
from cluster.spec import JobError, JobSpec, KubernetesOptions, Resources, Retry, Stopping
from tests.cluster.kubernetes_rules import Document, check, job_specs, templates, texts

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "kubernetes"
TRAINING = Resources(
    nodes=2, processes_per_node=8, cpus_per_process=12, gpus_per_process=1, memory_gib=900, time_limit_min=720
)


def job(**changes: Any) -> JobSpec:
    spec = JobSpec(
        id="faces-3f2a",
        name="Faces, first try",
        place="kubernetes",
        command=(
            "/home/me/.venv/bin/python",
            "-P",
            "-m",
            "jobs",
            "prepare",
            "--config",
            "/data/faces/job/config.yaml",
        ),
        folder=Path("/data/faces"),
        workdir=Path("/data"),
        code=Path("/data/faces/job/code"),
        image="films/castbank:0.1.0",
        resources=Resources(cpus_per_process=4, memory_gib=16),
        retry=Retry(max_failures=3),
        stopping=Stopping(grace_s=120, hang_s=1800),
        kubernetes=KubernetesOptions(volume="shared", namespace="films"),
    )
    return replace(spec, **changes)


GOLDENS = {
    "job": job(),
    "array": job(
        array=16, after=(Path("/data/earlier"),), mounts=("archive/clips:/clips:ro", "/scratch:/scratch")
    ),
    "rayjob": job(resources=Resources(nodes=4, cpus_per_process=16, memory_gib=64, time_limit_min=60)),
    "jobset": job(
        ranks=True,
        resources=TRAINING,
        priority=1,
        preemptible=False,
        environment={"NCCL_DEBUG": "INFO", "NOTE": "costs $(5) & more"},
        secrets={"MLFLOW_TRACKING_PASSWORD": "kubernetes:mlflow/password"},
        kubernetes=KubernetesOptions(
            volume="shared",
            namespace="films",
            queue="films-gpu",
            service_account="trainer",
            image_pull_secret="registry",
            node_selector={"gpu": "h100"},
            shared_memory_gib=64,
        ),
    ),
    "gang": job(ranks=True, resources=TRAINING, kubernetes=KubernetesOptions(volume="shared", kind="job")),
    "pytorchjob": job(
        ranks=True,
        resources=TRAINING,
        priority=-1,
        kubernetes=KubernetesOptions(volume="shared", kind="pytorchjob", queue="films-gpu"),
    ),
}


def rendered(spec: JobSpec) -> list[Document]:
    return list(yaml.safe_load_all(KubernetesLauncher().render(spec)))


@pytest.mark.parametrize("name", GOLDENS)
def test_objects_are_as_they_were_read_by_a_person(name: str) -> None:
    """CASTBANK_GOLDEN=new writes them anew; read the difference before it is kept."""
    text, path = launcher("kubernetes").render(GOLDENS[name]), GOLDEN / f"{name}.yaml"
    if os.environ.get("CASTBANK_GOLDEN") == "new":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
    for document in yaml.safe_load_all(text):
        check(document)


def test_the_kind_follows_from_the_job() -> None:
    kinds = {name: [document["kind"] for document in rendered(spec)] for name, spec in GOLDENS.items()}
    assert kinds == {
        "job": ["Job"],
        "array": ["Job"],
        "rayjob": ["RayJob"],
        "jobset": ["JobSet"],
        "gang": ["Job", "Service"],
        "pytorchjob": ["PyTorchJob"],
    }
    assert kind_of(job(ranks=True, resources=Resources(nodes=1, processes_per_node=8))) == "job"


@pytest.mark.parametrize("name", GOLDENS)
def test_pods_may_do_nothing_that_they_need_not(name: str) -> None:
    """The "restricted" pod security standard, a root file system that cannot be written, no token of the API."""
    found = [template["spec"] for document in rendered(GOLDENS[name]) for template in templates(document)]
    assert found
    for spec in found:
        assert not spec["automountServiceAccountToken"]
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 1000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"] == container["resources"]["limits"]
            paths = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert {"/tmp", "/home/castbank", "/dev/shm", "/data"} <= paths


def test_a_pod_has_time_for_its_checkpoint_and_a_deadline_that_leaves_it() -> None:
    spec = job(stopping=Stopping(grace_s=300), resources=Resources(time_limit_min=60))
    (document,) = rendered(spec)
    assert document["spec"]["activeDeadlineSeconds"] == 3600 - 300
    (template,) = templates(document)
    assert template["spec"]["terminationGracePeriodSeconds"] > 300
    (short,) = rendered(replace(spec, resources=Resources(time_limit_min=1)))
    assert short["spec"]["activeDeadlineSeconds"] == 1


def test_bad_input_ends_a_job_and_a_lost_node_is_not_its_fault() -> None:
    for name in ("job", "array", "jobset", "gang"):
        (spec,) = job_specs(rendered(GOLDENS[name])[0])
        end, again, disrupted = spec["podFailurePolicy"]["rules"]
        assert end["onExitCodes"]["values"] == [2, 3, 70]
        assert end["action"] == ("FailIndex" if name == "array" else "FailJob")
        assert (again["action"], again["onExitCodes"]["values"]) == ("Ignore", [75])
        assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    retried = rendered(job(retry=Retry(max_failures=7)))[0]["spec"]
    assert retried["backoffLimit"] == 6
    jobset = rendered(GOLDENS["jobset"])[0]["spec"]
    assert jobset["failurePolicy"]["maxRestarts"] == 2
    assert jobset["replicatedJobs"][0]["template"]["spec"]["backoffLimit"] == 0


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("jobset", "faces-3f2a-node-0-0.faces-3f2a.films.svc"),
        ("gang", "faces-3f2a-0.faces-3f2a.default.svc"),
    ],
)
def test_the_pods_of_a_training_find_the_first_one(name: str, host: str) -> None:
    job_object, *services = rendered(GOLDENS[name])
    (template,) = templates(job_object)
    variables = {item["name"]: item for item in template["spec"]["containers"][0]["env"]}
    assert variables["MASTER_ADDR"]["value"] == host
    assert variables["NODE_RANK"]["valueFrom"]["fieldRef"]["fieldPath"].startswith("metadata.annotations[")
    for service in services:
        assert service["metadata"]["name"] == template["spec"]["subdomain"] == "faces-3f2a"
        assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"]
        assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()


def test_names_are_those_of_the_domain_name_system_and_no_two_are_one() -> None:
    ids = [
        "a",
        "faces-3f2a",
        "A",
        "a_",
        "a.",
        "1a",
        "é",
        "",
        "-",
        "x" * 40,
        "x" * 41,
        "x" * 42,
        "a" * 30 + "-" * 20,
    ]
    names = [name_of(job_id) for job_id in ids]
    assert len(set(names)) == len(ids)
    assert all(re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", name) for name in names)
    assert names[:2] == ids[:2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image": ""}, r"image: came ''.*image=NAME:TAG"),
        ({"secrets": {"TOKEN": "env:TOKEN"}}, r"secrets.TOKEN: env:… cannot be resolved on kubernetes"),
        ({"secrets": {"TOKEN": "file:/token"}}, r"secrets.TOKEN: file:…"),
        ({"secrets": {"TOKEN": "kubernetes:name"}}, r"secrets.TOKEN: .*kubernetes:SECRET/KEY"),
        ({"environment": {"A B": "x"}}, r"environment: came 'A B'"),
        ({"environment": {"A": "x\0"}}, r"A|environment|NUL"),
        (
            {"folder": Path("/home/me/run")},
            r"folder: '/home/me/run' is not below kubernetes.volume_path=/data",
        ),
        ({"workdir": Path("/home/me")}, r"workdir: '/home/me' is not below"),
        ({"kubernetes": KubernetesOptions()}, r"kubernetes.volume: is empty"),
        (
            {"kubernetes": KubernetesOptions(volume="x", volume_path="/tmp")},
            r"kubernetes.volume_path: came '/tmp'",
        ),
        ({"kubernetes": KubernetesOptions(volume="x", run_as_user=0)}, r"kubernetes.run_as_user: came 0"),
        ({"kubernetes": KubernetesOptions(volume="x", namespace="A")}, r"kubernetes.namespace: came 'A'"),
        (
            {"kubernetes": KubernetesOptions(volume="x", node_selector={"a b": "c"})},
            r"kubernetes.node_selector",
        ),
        (
            {"kubernetes": KubernetesOptions(volume="x", shared_memory_gib=16)},
            r"kubernetes.shared_memory_gib: came 16",
        ),
        (
            {"kubernetes": KubernetesOptions(volume="x", kind="pytorchjob")},
            r"kubernetes.kind: came 'pytorchjob'",
        ),
        (
            {"kubernetes": KubernetesOptions(volume="x", kind="rayjob"), "ranks": True},
            r"kubernetes.kind: came 'rayjob'",
        ),
        (
            {"kubernetes": KubernetesOptions(volume="x", kind="job"), "resources": Resources(nodes=2)},
            r"kubernetes.kind",
        ),
        ({"mounts": ("a:b",)}, r"mounts: came 'b'"),
        ({"mounts": ("/a:/b:rw",)}, r"mounts: came '/a:/b:rw'"),
        ({"mounts": ("/a/../b:/b",)}, r"mounts: .* without \.\."),
        ({"mounts": ("A_B:/b",)}, r"mounts: .*PersistentVolumeClaim"),
        ({"mounts": ("/a:/data",)}, r"mounts: '/data' is given twice"),
        ({"name": "\ud800"}, r"castbank/name: .*not Unicode"),
    ],
)
def test_what_cannot_be_is_said_with_its_field(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        KubernetesLauncher().render(job(**changes))


def test_a_value_that_was_given_for_a_secret_is_not_repeated() -> None:
    with pytest.raises(JobError) as raised:
        KubernetesLauncher().render(job(secrets={"TOKEN": "hunter2-value"}))
    assert "hunter2" not in str(raised.value)
    text = KubernetesLauncher().render(GOLDENS["jobset"])
    assert "secretKeyRef" in text and "kubernetes:mlflow" not in text


FREE = ("labels", "annotations", "nodeSelector", "requests", "limits", "rayStartParams", "selector")


def fields(node: Any, free: bool = False) -> Iterator[tuple[dict[str, Any], str]]:
    """Every field of an object, except in maps whose keys are anybody's."""
    if isinstance(node, dict):
        for key, value in node.items():
            if not free:
                yield node, key
            yield from fields(value, key in FREE)
    elif isinstance(node, list):
        for value in node:
            yield from fields(value)


@pytest.mark.parametrize("name", GOLDENS)
def test_a_field_that_is_misspelt_anywhere_would_be_seen(name: str) -> None:
    """What checks the objects above sees all of them, down to the last probe."""
    for document in rendered(GOLDENS[name]):
        for place, key in list(fields(document)):
            value = place.pop(key)
            place[f"{key}x"] = value
            with pytest.raises((ValidationError, KeyError, AssertionError)):
                check(document)
            del place[f"{key}x"]
            place[key] = value


def test_the_published_checker_agrees() -> None:
    for name in ("job", "array", "gang"):
        for document in rendered(GOLDENS[name]):
            kubernetes_validate.validate(
                document, "1.29", strict=True
            )  # the oldest that knows all the fields
            kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_the_place_has_its_two_ends() -> None:
    assert isinstance(launcher("kubernetes"), KubernetesLauncher)
    assert starter("kubernetes").__module__ == "cluster.kubernetes.children"
    assert all(isinstance(text, str) for document in rendered(job()) for text in texts(document))
