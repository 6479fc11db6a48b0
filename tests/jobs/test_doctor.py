"""What the doctor finds on a machine that is fine, and on one where each thing is broken."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from jobs import doctor
from jobs.__main__ import main


class Healthy(BaseHTTPRequestHandler):
    """Answers as an MLflow server does on /health, and on nothing else."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nobody watches."""


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Healthy) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def states(findings: Iterator[doctor.Finding]) -> dict[str, str]:
    return {finding.name: finding.state for finding in findings}


def test_a_machine_that_is_fine(
    face_home: Path, tmp_path: Path, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--output", str(tmp_path / "shards"), "--tracking-uri", server]) == 0
    said = capsys.readouterr().out
    for line in ("ok      python: ", "ok      face pack embedded: ", "ok      ray: ran a task on "):
        assert line in said
    assert f"ok      mlflow: {server}" in said
    assert ": 0 broken, " in said.splitlines()[-1]
    assert not (tmp_path / "shards").exists()


def test_everything_that_is_broken_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CASTBANK_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    monkeypatch.setattr(doctor, "check_ray", lambda: iter(()))  # minutes to give up; tested on its own
    nowhere = f"http://127.0.0.1:{free_port()}"
    (tmp_path / "file").touch()
    code = main(["doctor", "--output", str(tmp_path / "file" / "x"), "--tracking-uri", nowhere])
    said = capsys.readouterr().out
    assert code == 2
    assert "BROKEN  face pack embedded: " in said
    assert "-> castbank faces install embedded" in said
    assert f"BROKEN  disk: {tmp_path / 'file'} is not a folder\n          -> choose another --output" in said
    assert f"BROKEN  mlflow: {nowhere}: " in said
    assert "-> start the server (mlflow server) or correct tracking.uri" in said
    assert ": 3 broken, " in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("uri", "state"),
    [
        ("", "ok"),
        ("sqlite:////tmp/mlflow.db", "ok"),
        ("sqlite:////proc/none/mlflow.db", "broken"),
        ("http://", "broken"),
        ("databricks", "warning"),
    ],
)
def test_tracking_stores(uri: str, state: str) -> None:
    assert states(doctor.check_tracking(uri)) == {"mlflow": state}


def test_a_server_that_is_not_mlflow(server: str) -> None:
    assert states(doctor.check_tracking(server + "/other")) == {"mlflow": "broken"}
