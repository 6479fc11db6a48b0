"""What an API server takes, for tests without one: published schemas of the core kinds, schemas of ours for the
custom ones, and the rules that the server checks beyond any schema, as far as our objects touch them."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

SCHEMAS = Path(__file__).parent / "schemas"
CUSTOM = {"JobSet": "jobset", "PyTorchJob": "pytorchjob", "RayJob": "rayjob"}
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
QUALIFIED = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
QUANTITY = re.compile(r"[1-9][0-9]*(m|Mi)?")

Document = dict[str, Any]


def check(document: Document) -> None:
    """Fail where an API server would refuse the object."""
    kind = document["kind"]
    if kind in CUSTOM:
        schema = json.loads((SCHEMAS / f"{CUSTOM[kind]}.json").read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator(schema).validate(document)
        for part in _core_parts(document):
            _core(part)
    else:
        _core(document)
    problems = list(_problems(document))
    assert not problems, problems


def _core(document: Document) -> None:
    """What ``kubernetes-validate --strict`` does, with schemas that are read once."""
    version = document["apiVersion"].replace("/", "-")
    _validator(f"{document['kind'].lower()}-{version}.json").validate(document)


@functools.cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    folder = f"kubernetes-json-schema/v{kubernetes_validate.latest_version()}-local-strict"
    schema, definitions = (
        schema_contents(f"{folder}/{file}", kubernetes_validate.latest_version())
        for file in (name, "_definitions.json")
    )
    registry = Resource.from_contents(definitions) @ (Resource.from_contents(schema) @ Registry())
    return jsonschema.Draft202012Validator(schema, registry=registry)


def templates(node: Any) -> Iterator[Document]:
    """Every pod template in an object; the template of a Job has another one in it."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "template" and "template" not in value.get("spec", {}):
                yield value
            else:
                yield from templates(value)
    elif isinstance(node, list):
        for value in node:
            yield from templates(value)


def job_specs(document: Document) -> Iterator[Document]:
    """Every specification of a Job in an object."""
    if document["kind"] == "Job":
        yield document["spec"]
    for replicated in document["spec"].get("replicatedJobs", ()):
        yield replicated["template"]["spec"]


def _core_parts(document: Document) -> Iterator[Document]:
    jobs = list(job_specs(document))
    for spec in jobs:
        yield {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": spec}
    for template in () if jobs else templates(document):
        yield {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}


def _problems(document: Document) -> Iterator[str]:
    metadata = document["metadata"]
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", metadata["name"]) or len(metadata["name"]) > 47:
        yield f"name {metadata['name']!r}"
    for labels in (metadata["labels"], *(t["metadata"]["labels"] for t in templates(document))):
        yield from _label_problems(labels)
    for key in metadata["annotations"]:
        if not QUALIFIED.fullmatch(key):
            yield f"annotation {key!r}"
    for spec in job_specs(document):
        yield from _job_problems(spec)
        host = f"{metadata['name']}-node-0-{spec['completions'] - 1}"
        if len(host) > 63:
            yield f"hostname {host!r}"
    for template in templates(document):
        yield from _pod_problems(template["spec"])
    if any("\0" in text for text in texts(document)):
        yield "NUL"


def _label_problems(labels: dict[str, str]) -> Iterator[str]:
    for key, value in labels.items():
        if not QUALIFIED.fullmatch(key) or not VALUE.fullmatch(value) or len(value) > 63:
            yield f"label {key!r}: {value!r}"


def _job_problems(spec: Document) -> Iterator[str]:
    for rule in spec["podFailurePolicy"]["rules"]:
        codes = rule.get("onExitCodes", {}).get("values", [1])
        if codes != sorted(set(codes)) or 0 in codes:
            yield f"exit codes {codes}"
        if ("onExitCodes" in rule) == ("onPodConditions" in rule):
            yield "one of onExitCodes and onPodConditions"
        if rule["action"] == "FailIndex" and "backoffLimitPerIndex" not in spec:
            yield "FailIndex without backoffLimitPerIndex"
    if ("backoffLimit" in spec) == ("backoffLimitPerIndex" in spec):
        yield "one backoff limit"
    if spec["template"]["spec"].get("restartPolicy") != "Never":
        yield "podFailurePolicy wants restartPolicy Never"


def _pod_problems(spec: Document) -> Iterator[str]:
    volumes = [volume["name"] for volume in spec["volumes"]]
    if len(set(volumes)) < len(volumes):
        yield f"volumes {volumes}"
    yield from _label_problems(spec.get("nodeSelector", {}))
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        yield from _container_problems(container, volumes)


def _container_problems(container: Document, volumes: list[str]) -> Iterator[str]:
    paths = [mount["mountPath"] for mount in container["volumeMounts"]]
    if len(set(paths)) < len(paths):
        yield f"mount paths {paths}"
    for mount in container["volumeMounts"]:
        path = mount["mountPath"]
        if mount["name"] not in volumes or ":" in path or ".." in path.split("/") or not path.startswith("/"):
            yield f"mount {mount}"
    names = [item["name"] for item in container["env"]]
    if len(set(names)) < len(names):
        yield f"variables {names}"
    for name in names:
        if not re.fullmatch(r"[-._a-zA-Z][-._a-zA-Z0-9]*", name):
            yield f"variable {name!r}"
    for amount in container["resources"]["limits"].values():
        if not QUANTITY.fullmatch(amount):
            yield f"quantity {amount!r}"
    if not container["image"] or container["image"] != container["image"].strip():
        yield f"image {container['image']!r}"


def texts(node: Any) -> Iterator[str]:
    """Every text in an object, keys too."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield key
            yield from texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from texts(value)
    elif isinstance(node, str):
        yield node
