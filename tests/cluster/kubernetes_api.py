"""An API server for tests, as much of one as ``kubectl`` needs: discovery, create, get by name and label, delete.

It takes only what ``kubernetes_rules`` lets pass. No controller and no kubelet is behind it: objects stay as they
are made, and a test writes their status and their pods.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jsonschema import ValidationError

from tests.cluster.kubernetes_rules import Document, check

KINDS = {  # group/version to kind and what URLs call it
    "v1": [("Pod", "pods"), ("Service", "services"), ("PersistentVolumeClaim", "persistentvolumeclaims")],
    "batch/v1": [("Job", "jobs")],
    "jobset.x-k8s.io/v1alpha2": [("JobSet", "jobsets")],
    "kubeflow.org/v1": [("PyTorchJob", "pytorchjobs")],
    "ray.io/v1": [("RayJob", "rayjobs")],
}


@dataclass
class Api:
    """What the server holds: objects by what their kind is called and their name; how it refuses; what came."""

    namespace: str = "films"
    objects: dict[tuple[str, str], Document] = field(default_factory=dict)
    groups: set[str] = field(default_factory=lambda: set(KINDS))
    refuse: dict[str, tuple[int, str, str]] = field(default_factory=dict)  # method to code, reason, message
    asked: list[str] = field(default_factory=list)
    kubeconfig: Path = Path()

    def add_pod(self, job: str, name: str, status: Document) -> None:
        """A pod of a job, as a controller would have made it."""
        metadata = {"name": name, "namespace": self.namespace, "labels": {"castbank.job": job}}
        self.objects["pods", name] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "status": status,
        }

    def add_claim(self, name: str) -> None:
        """A volume's claim."""
        self.objects["persistentvolumeclaims", name] = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": self.namespace},
        }


@contextmanager
def api_server(folder: Path) -> Iterator[Api]:
    """A running server, and a kubeconfig in ``folder`` that leads to it."""
    api = Api()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": api}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    api.kubeconfig = folder / "kubeconfig"
    api.kubeconfig.write_text(kubeconfig(server.server_port), encoding="utf-8")
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def kubeconfig(port: int) -> str:
    """A kubeconfig, which is YAML and so may be JSON, with one context, ``lab``."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "me", "user": {}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "me"}}],
        }
    )


def _openapi(path: str) -> Document:
    """That the server checks the fields of what is created by itself, which is all that kubectl wants to know."""
    of = {version: f"{'apis' if '/' in version else 'api'}/{version}" for version in KINDS}
    if not path:
        return {"paths": {place: {"serverRelativeURL": f"/openapi/v3/{place}"} for place in of.values()}}
    version = next(version for version, place in of.items() if place == path)
    group, _, number = version.rpartition("/")
    paths = {
        f"/{path}/namespaces/{{namespace}}/{plural}/{{name}}": {
            "patch": {
                "x-kubernetes-group-version-kind": {"group": group, "version": number, "kind": kind},
                "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
                "responses": {},
            }
        }
        for kind, plural in KINDS[version]
    }
    return {"openapi": "3.0.0", "info": {"title": "lab", "version": "1"}, "paths": paths}


class _Handler(BaseHTTPRequestHandler):
    api: Api

    def do_GET(self) -> None:
        path, question = self._place()
        found = self._discovery(path)
        if found is not None:
            self._answer(200, found)
        elif not self._refused("GET"):
            plural, name = self._object(path)
            if plural is None:
                self._fail(404, "NotFound", "the server could not find the requested resource")
            elif name:
                self._one(plural, name)
            else:
                self._list(plural, question.get("labelSelector", [""])[0])

    def do_POST(self) -> None:
        path, _ = self._place()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        plural, _ = self._object(path)
        if self._refused("POST"):
            return
        if plural is None:
            self._fail(404, "NotFound", "the server could not find the requested resource")
            return
        name = body["metadata"]["name"]
        if f"/namespaces/{self.api.namespace}/" not in path:
            self._fail(404, "NotFound", 'namespaces "other" not found')
        elif (plural, name) in self.api.objects:
            self._fail(409, "AlreadyExists", f'{plural} "{name}" already exists')
        else:
            self._create(plural, name, body)

    def do_DELETE(self) -> None:
        path, _ = self._place()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        plural, name = self._object(path)
        if not self._refused("DELETE") and plural:
            found = self.api.objects.pop((plural, name), None)
            if found is None:
                self._fail(404, "NotFound", f'{plural} "{name}" not found')
            else:
                self._answer(200, found)

    def log_message(self, format: str, *args: Any) -> None:
        self.api.asked.append(format % args)

    def _create(self, plural: str, name: str, body: Document) -> None:
        owners = body["metadata"].pop("ownerReferences", [])
        try:
            check(body)
        except (ValidationError, AssertionError) as error:
            self._fail(422, "Invalid", f'{body["kind"]} "{name}" is invalid: {error}')
            return
        body["metadata"] |= {"uid": f"uid-{name}", "ownerReferences": owners}
        self.api.objects[plural, name] = body
        self._answer(201, body)

    def _one(self, plural: str, name: str) -> None:
        found = self.api.objects.get((plural, name))
        if found is None:
            self._fail(404, "NotFound", f'{plural} "{name}" not found')
        else:
            self._answer(200, found)

    def _list(self, plural: str, selector: str) -> None:
        wanted = re.fullmatch(r"castbank\.job(?: in \(([^)]*)\)|=(.*))?", selector)
        assert wanted, selector
        names = (wanted[1] or wanted[2] or "").split(",")
        items = [
            found
            for (kind, _), found in self.api.objects.items()
            if kind == plural
            and "castbank.job" in (labels := found["metadata"].get("labels", {}))
            and (names == [""] or labels["castbank.job"] in names)
        ]
        version, kind = next((v, k) for v, kinds in KINDS.items() for k, p in kinds if p == plural)
        self._answer(200, {"apiVersion": version, "kind": f"{kind}List", "metadata": {}, "items": items})

    def _discovery(self, path: str) -> Document | None:
        groups = sorted(group for group in self.api.groups if "/" in group)
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            made = [(g.split("/")[0], {"groupVersion": g, "version": g.split("/")[1]}) for g in groups]
            listed = [{"name": n, "versions": [v], "preferredVersion": v} for n, v in made]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
        if path.startswith("/openapi/v3"):
            return _openapi(path.removeprefix("/openapi/v3").strip("/"))
        version = path.removeprefix("/apis/").removeprefix("/api/")
        if version in self.api.groups:
            verbs = ["create", "delete", "get", "list"]
            made_of = [
                {"name": p, "singularName": k.lower(), "namespaced": True, "kind": k, "verbs": verbs}
                for k, p in KINDS[version]
            ]
            return {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": version,
                "resources": made_of,
            }
        return None

    def _object(self, path: str) -> tuple[str | None, str]:
        match = re.fullmatch(r"/(?:api|apis)/(v1|[^/]+/[^/]+)/namespaces/[^/]+/([^/]+)(?:/([^/]+))?", path)
        if match is None or match[1] not in self.api.groups:
            return None, ""
        return match[2], match[3] or ""

    def _place(self) -> tuple[str, dict[str, list[str]]]:
        url = urlsplit(self.path)
        return url.path, parse_qs(url.query)

    def _refused(self, method: str) -> bool:
        if method not in self.api.refuse:
            return False
        self._fail(*self.api.refuse[method])
        return True

    def _fail(self, code: int, reason: str, message: str) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        self._answer(code, status | {"message": message, "reason": reason, "code": code})

    def _answer(self, code: int, body: Document) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
