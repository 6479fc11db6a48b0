"""What the doctor asks a cluster, through the real kubectl, of an API server that holds just the answers.

No real API server was used: what is shown here is that the questions are those that the API documents, and what
is made of its answers.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cluster.checks import kubernetes
from cluster.checks.finding import Finding
from cluster.spec import KubernetesOptions

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
CLAIMS = "/api/v1/namespaces/team/persistentvolumeclaims"
GROUPS = {"batch/v1": "jobs", "jobset.x-k8s.io/v1alpha2": "jobsets", "ray.io/v1": "rayjobs"}


def claim(phase: str, *modes: str) -> dict[str, Any]:
    return {"spec": {"accessModes": modes}, "status": {"phase": phase, "capacity": {"storage": "10Ti"}}}


def quota(used: str) -> dict[str, Any]:
    status = {"hard": {"requests.nvidia.com/gpu": "8"}, "used": {"requests.nvidia.com/gpu": used}}
    return {"items": [{"metadata": {"name": "gpus"}, "status": status}]}


class Cluster:
    """Answers by path, and the rights that are denied, as "verb resource"; 403 where forbidden, else 404."""

    def __init__(self) -> None:
        self.answers: dict[str, dict[str, Any]] = {
            "/version": {"gitVersion": "v1.34.2"},
            "/api/v1/namespaces/team": {},
            "/api/v1/namespaces/team/resourcequotas": quota("2"),
            "/api/v1/namespaces/team/serviceaccounts/trainer": {},
            f"{CLAIMS}/data": claim("Bound", "ReadWriteMany"),
            f"{CLAIMS}/disk": claim("Bound", "ReadWriteOnce"),
            f"{CLAIMS}/new": claim("Pending", "ReadWriteMany"),
            "/apis/kueue.x-k8s.io/v1beta1/namespaces/team/localqueues/low": {"spec": {"clusterQueue": "all"}},
        }
        for version, resource in GROUPS.items():
            self.answers[f"/apis/{version}"] = {"resources": [{"name": resource}]}
        self.denied: set[str] = set()
        self.forbidden: set[str] = set()
        self.asked: list[str] = []

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if path == REVIEWS:
            assert (
                body["kind"] == "SelfSubjectAccessReview" and body["apiVersion"] == "authorization.k8s.io/v1"
            )
            wish = body["spec"]["resourceAttributes"]
            assert wish["namespace"] == "team"
            self.asked.append(f"{wish['verb']} {wish['resource']}")
            return 201, {**body, "status": {"allowed": self.asked[-1] not in self.denied}}
        if path in self.forbidden:
            return 403, failure(403, "Forbidden", f'{path} is forbidden: User "u" cannot get it')
        found = self.answers.get(path)
        return (404, failure(404, "NotFound", f"{path} not found")) if found is None else (200, found)


def failure(code: int, reason: str, message: str) -> dict[str, Any]:
    head = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return head | {"message": message, "reason": reason, "code": code}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    made = Cluster()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, answer = made.answer(self.path.split("?")[0], json.loads(self.body() or b"{}"))
            text = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_GET

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":  # kubectl streams what it is given
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            whole = b""
            while size := int(self.rfile.readline(), 16):
                whole += self.rfile.read(size)
                self.rfile.readline()
            return whole

        def log_message(self, format: str, *args: object) -> None:
            """Nobody watches."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
            "users": [{"name": "me", "user": {}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "me"}}],
        }
        (tmp_path / "config").write_text(json.dumps(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        yield made
        server.shutdown()


def asked(**options: Any) -> dict[str, Finding]:
    found = kubernetes.check(KubernetesOptions(namespace=options.pop("namespace", "team"), **options))
    return {finding.name: finding for finding in found}


def test_a_cluster_that_is_well(cluster: Cluster) -> None:
    found = asked(volume="data", queue="low", service_account="trainer")
    assert {name: finding.state for name, finding in found.items()} == {
        "kubernetes": "ok",
        "namespace team": "ok",
        "kind job": "ok",
        "kind jobset": "ok",
        "kind rayjob": "ok",
        "kind pytorchjob": "warning",  # not there, and nobody asked for it
        "rights": "ok",
        "quota gpus": "ok",
        "volume data": "ok",
        "queue low": "ok",
        "service account trainer": "ok",
    }
    assert found["kubernetes"].seen == "context lab: v1.34.2 answers"
    assert found["quota gpus"].seen == "requests.nvidia.com/gpu 2 of 8"
    assert found["volume data"].seen == "10Ti, ReadWriteMany, mounted at /data"
    assert {"create jobs", "create jobsets", "create rayjobs", "list pods"} <= set(cluster.asked)
    assert "create pytorchjobs" not in cluster.asked


def test_what_may_be_wrong_with_a_cluster(cluster: Cluster) -> None:
    cluster.denied = {"create jobs", "get pods/log"}
    cluster.answers["/api/v1/namespaces/team/resourcequotas"] = quota("8")
    found = asked(kind="pytorchjob", volume="disk", queue="high", service_account="nobody")
    assert found["kind pytorchjob"].state == "broken"
    assert found["kind pytorchjob"].remedy == "install the training operator"
    assert found["rights"].seen == "not allowed in team: create jobs, get pods/log"
    assert found["quota gpus"].state == "warning" and "nothing is left" in found["quota gpus"].remedy
    assert found["volume disk"].seen == "can be mounted ReadWriteOnce"
    assert found["queue high"].state == "broken" and "not found" in found["queue high"].seen.lower()
    assert found["service account nobody"].state == "broken"
    cluster.answers.pop("/api/v1/namespaces/team")
    found = asked(volume="new")
    assert found["volume new"].seen == "is Pending"
    assert found["namespace team"].state == "broken"
    assert asked(volume="none")["volume none"].state == "broken"


def test_what_may_not_be_looked_at_is_no_fault(cluster: Cluster) -> None:
    quotas = "/api/v1/namespaces/team/resourcequotas"
    account = "/api/v1/namespaces/team/serviceaccounts/trainer"
    cluster.forbidden = {"/api/v1/namespaces/team", quotas, account}
    found = asked(service_account="trainer")
    assert found["namespace team"].state == found["service account trainer"].state == "ok"
    assert found["volume"].state == "warning"  # none is given
    assert found["quota"].state == "warning" and "forbidden" in found["quota"].seen.lower()


def test_a_cluster_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Cluster
) -> None:
    assert asked(context="other")["kubernetes"].state == "broken"
    assert 'context "other" does not exist' in asked(context="other")["kubernetes"].seen
    text = Path(tmp_path / "config").read_text()
    (tmp_path / "config").write_text(moved(text))
    (finding,) = asked().values()
    assert finding.state == "broken" and "refused" in finding.seen
    (tmp_path / "config").write_text("{}")
    (finding,) = asked().values()
    assert finding.seen == "kubectl has no current context"


def moved(text: str) -> str:
    config = json.loads(text)
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:9"
    return json.dumps(config)
