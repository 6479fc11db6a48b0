"""What the doctor finds on a machine that is fine, on one where each thing is broken, and which places it asks."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cluster.checks.finding import Finding
from data_prep.records import InputError
from jobs import doctor, doctor_machine
from jobs.__main__ import main
from jobs.doctor_stores import check_s3, check_tracking
from tests import tracking_lab


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


def states(findings: Iterator[Finding]) -> dict[str, str]:
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
    monkeypatch.setattr(
        doctor_machine, "check_ray", lambda: iter(())
    )  # minutes to give up; tested on its own
    nowhere = f"http://127.0.0.1:{free_port()}"
    (tmp_path / "file").touch()
    code = main(["doctor", "--output", str(tmp_path / "file" / "x"), "--tracking-uri", nowhere])
    said = capsys.readouterr().out
    assert code == 2
    assert "BROKEN  face pack embedded: " in said
    assert "-> castbank faces install embedded" in said
    assert f"BROKEN  disk: {tmp_path / 'file'} is not a folder\n          -> choose another --output" in said
    assert f"BROKEN  mlflow: {nowhere}: " in said
    assert "-> start the server (castbank dashboard) or correct tracking.uri" in said
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
    assert states(check_tracking(uri)) == {"mlflow": state}


def test_a_server_that_is_not_mlflow(server: str) -> None:
    assert states(check_tracking(server + "/other")) == {"mlflow": "broken"}


def test_a_file_for_runs_of_several_machines_is_warned_about() -> None:
    (finding,) = check_tracking("", elsewhere=True)
    assert finding.state == "warning"
    assert "castbank dashboard" in finding.remedy


def test_a_folder_for_jobs_is_tried_on_this_machine(tmp_path: Path) -> None:
    (finding,) = doctor.check_folder(tmp_path)
    assert finding.state == "ok"
    assert "locks and renames work" in finding.seen
    assert not list(tmp_path.iterdir())
    (finding,) = doctor.check_folder(tmp_path / "none")
    assert (finding.state, finding.name) == ("broken", "folder")
    assert "No such file" in finding.seen


def test_rights_in_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("moto")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", tracking_lab.KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", tracking_lab.SECRET_KEY)
    with tracking_lab.s3() as endpoint:
        assert states(check_s3(f"s3://{tracking_lab.BUCKET}/x", endpoint)) == {"bucket": "ok"}
        (finding,) = check_s3("s3://no-such-bucket", endpoint)
    assert finding.state == "broken"
    assert finding.seen.endswith("cannot be found: there is no such bucket")
    assert finding.remedy == "make it, or correct the name"


def test_options_of_a_place_are_checked_as_in_a_job_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"did you mean 'slurm\.partition'"):
        doctor.configs.load(doctor.DoctorConfig, None, ["slurm.partitoin=gpu"])
    assert main(["doctor", "--on", "slurm", "slurm.partitoin=gpu"]) == 2
    assert "slurm.partitoin" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "name", "words"),
    [("slurm", "slurm", "sinfo, srun, "), ("kubernetes", "kubernetes", "kubectl is not there")],
)
def test_a_place_whose_programs_are_missing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: str,
    name: str,
    words: str,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["doctor", "--on", place, "--output", str(tmp_path)]) == 2
    said = capsys.readouterr().out
    assert f"BROKEN  {name}: {words}" in said
    assert "face pack" not in said  # of this machine, which runs no job


def test_a_ray_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    assert main(["doctor", "--on", "ray", "--output", str(tmp_path), f"ray.address={nowhere}"]) == 2
    assert f"BROKEN  ray: {nowhere}: [Errno 111] Connection refused" in capsys.readouterr().out
