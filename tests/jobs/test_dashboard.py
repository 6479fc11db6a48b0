"""The dashboard on real stores (sqlite, PostgreSQL, S3): what it refuses, what it shows, what it never says."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest

from cluster.job_folder import JobFolder
from data_prep.faces import packs
from data_prep.records import InputError
from jobs import config as configs
from jobs import dashboard
from jobs.__main__ import main
from jobs.dashboard import DashboardConfig
from jobs.dashboard_stores import Keys, check_bucket, check_database, referenced
from pipeline.config import TrackingConfig
from pipeline.tracking.mlflow_tracker import MlflowTracker
from pipeline.tracking.tracker import TrackedRun
from tests import tracking_lab
from tests.jobs.test_dashboard_server import members
from tests.small_training import Workplace
from tests.tracking_lab import BUCKET, KEY_ID, PASSWORD, SECRET_KEY, Lab, free_port
from tests.waiting import until

ROOT = Path(__file__).resolve().parent.parent.parent
LAST_LINE = "Ctrl-C ends it\n"


@pytest.fixture(scope="module")
def stores() -> Iterator[Lab]:
    if reason := tracking_lab.missing():
        pytest.skip(reason)
    pytest.importorskip("moto")
    with tracking_lab.lab() as made:
        yield made


@contextmanager
def served(
    folder: Path, overrides: Sequence[str], environment: dict[str, str]
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A dashboard that has said that it answers, and what it printed until then."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", "dashboard", *overrides],
        cwd=folder,
        env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines: list[str] = []
    try:
        while not lines or lines[-1] != LAST_LINE:
            lines.append(process.stdout.readline())
            assert lines[-1], f"it ended: {lines}"
        yield process, lines
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stdout.close()


def status_of(url: str, host: str = "") -> int:
    try:
        with urlopen(Request(url, headers={"Host": host} if host else {}), timeout=30) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def said(folder: Path, *overrides: str) -> str:
    """Why these arguments are refused."""
    with pytest.raises(InputError) as caught:
        config = configs.load(DashboardConfig, None, [f"log={folder / 'log'}", *overrides])
        dashboard.check(config)
        dashboard.prepared(config)
    return str(caught.value)


def test_nobody_is_let_in_from_elsewhere_unawares(tmp_path: Path) -> None:
    text = said(tmp_path, "host=0.0.0.0")
    assert "no passwords" in text and "allow_remote=true" in text and "ssh -N -L 5000:" in text
    port = free_port()
    config = DashboardConfig(host="0.0.0.0", allow_remote=True, names="mlflow.team, other", port=port)
    dashboard.check(config)
    allowed = dashboard.allowed_hosts(config)
    assert {
        socket.gethostname(),
        f"{socket.gethostname()}:*",
        "mlflow.team:*",
        "other",
        "127.0.0.1:*",
    } <= set(allowed)
    assert not any(name.startswith("*") for name in allowed)
    assert dashboard.url(config) == f"http://{socket.getfqdn()}:{port}"


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = said(tmp_path, f"port={port}")
    assert text.startswith(f"host=127.0.0.1 port={port} cannot be listened on (Address already in use); ")
    assert "port=" in said(tmp_path, "port=0")


def test_a_secret_is_given_by_reference_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = f"port={free_port()}"
    given = f"postgresql://castbank:{PASSWORD}@127.0.0.1/postgres"
    for text in (
        said(tmp_path, port, f"backend={given}"),
        said(tmp_path, port, f"s3.key_id={KEY_ID}", "s3.secret_key=x"),
    ):
        assert "does not belong on a command line" in text
        assert PASSWORD not in text and KEY_ID not in text
    assert said(tmp_path, port, "backend=env:LAB_NOT_SET").endswith("LAB_NOT_SET is not set; export it first")
    assert "No such file" in said(tmp_path, port, f"backend=file:{tmp_path / 'none'}")
    assert said(tmp_path, port, "s3.key_id=env:HOME").startswith("s3.secret_key: no value; ")
    secret = tmp_path / "secret"
    secret.write_text(f" {given}\n")
    assert referenced("backend", f"file:{secret}") == given
    monkeypatch.setenv("LAB_STORE", given)
    assert referenced("backend", "env:LAB_STORE") == given
    assert said(tmp_path, port, "backend=env:LAB_STORE").startswith("artifacts: no value; ")


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("nonsense", "is not the URI of a database"),
        ("http://somewhere/x", "is not the URI of a database"),
        ("mysql+pymysql://u:pw@127.0.0.1/x", "needs the driver pymysql, which is not installed; pip install"),
        ("postgresql://u:pw@127.0.0.1:{free}/x", "does not take us ("),
    ],
)
def test_databases_that_cannot_be_used(uri: str, expected: str) -> None:
    with pytest.raises(InputError, match=r"^backend: ") as caught:
        check_database("backend", uri.format(free=free_port()))
    assert expected in str(caught.value)
    assert "pw" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_real_database_and_a_wrong_password(stores: Lab) -> None:
    assert check_database("backend", stores.database) == stores.database.replace(PASSWORD, "***")
    for wrong in (
        stores.database.replace(PASSWORD, "wrong-pw"),
        stores.database.replace("/postgres", "/nodb"),
    ):
        with pytest.raises(InputError, match="does not take us") as caught:
            check_database("backend", wrong)
        assert "wrong-pw" not in str(caught.value) and PASSWORD not in str(caught.value)


def test_a_real_bucket_and_what_may_be_wrong_with_it(stores: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # nobody is asked over the network
    monkeypatch.setenv("HOME", "/nonexistent")
    keys = Keys(KEY_ID, SECRET_KEY)
    assert SECRET_KEY not in repr(keys)
    check_bucket("artifacts", f"s3://{BUCKET}/a/prefix", stores.endpoint, keys)
    left = tracking_lab.client(stores.endpoint).list_objects_v2(Bucket=BUCKET, Prefix="a/prefix/")
    assert "Contents" not in left  # all of moto's servers in one process hold one set of buckets
    nowhere = f"http://127.0.0.1:{free_port()}"
    for destination, endpoint, with_keys, expected in (
        ("s3://no-such-bucket/x", stores.endpoint, keys, "cannot be found: there is no such bucket"),
        (f"s3://{BUCKET}", nowhere, keys, "check the endpoint"),
        (f"s3://{BUCKET}", "nonsense", keys, "is no URL"),
        (f"s3://{BUCKET}", stores.endpoint, Keys(), "no keys are found"),
        ("gs://other", stores.endpoint, keys, "s3://BUCKET or s3://BUCKET/PREFIX is wanted"),
    ):
        with pytest.raises(InputError, match=r"^artifacts") as caught:
            check_bucket("artifacts", destination, endpoint, with_keys)
        assert expected in str(caught.value)


@pytest.mark.slow
def test_a_store_of_this_machine_is_served_until_its_dashboard_is_gone(tmp_path: Path) -> None:
    port = free_port()
    with served(tmp_path, [f"port={port}", "workers=2"], {}) as (process, lines):
        assert lines[-3:-1] == [
            f"open http://127.0.0.1:{port}\n",
            f"train with tracking.uri=http://127.0.0.1:{port}\n",
        ]
        assert (tmp_path / "runs" / "mlflow.db").is_file()
        page = f"http://127.0.0.1:{port}/"
        assert status_of(page) == 200
        assert status_of(page, "another.site") == 403
        with socket.create_connection(("127.0.0.1", port)) as held:
            held.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert held.recv(1000).startswith(b"HTTP/1.1 200")
            (keeper,) = psutil.Process(process.pid).children()
            assert len(members(keeper.pid)) >= 5  # with mlflow, uvicorn and its two workers
            process.kill()  # not even asked
            held.settimeout(60)
            while held.recv(1000):  # until the server has closed, as it does when it ends
                pass
        process.wait(30)
        until(lambda: not members(keeper.pid))


@pytest.mark.slow
@pytest.mark.parametrize("master", ["mlflow", "uvicorn"])
def test_no_worker_outlives_its_master(tmp_path: Path, master: str) -> None:
    with served(tmp_path, [f"port={free_port()}", "workers=2"], {}) as (process, _):
        (keeper,) = psutil.Process(process.pid).children()
        (killed,) = (p for p in members(keeper.pid) if p.cmdline()[1:3] == ["-m", master])
        killed.kill()
        assert process.wait(60) == 1
        until(lambda: not members(keeper.pid))


@pytest.mark.slow
def test_a_server_that_ends_by_itself_is_a_failure_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mlflow.db").write_text(
        "this is no sqlite file, but only MLflow looks into it " * 20
    )
    code = dashboard.run(args_of([f"port={free_port()}"]))
    out = capsys.readouterr()
    assert code == 1 and out.out == ""
    assert "file is not a database" in out.err
    assert out.err.endswith("castbank dashboard: the server ended with 1; its log is runs/dashboard.log\n")


def args_of(overrides: list[str]) -> argparse.Namespace:
    return argparse.Namespace(config=None, overrides=overrides)


@pytest.mark.slow
def test_a_whole_run_on_postgresql_and_s3(stores: Lab, tmp_path: Path) -> None:
    import psycopg
    from mlflow import MlflowClient

    port, picture = free_port(), os.urandom(200_000)
    run = tracked(tmp_path / "elsewhere" / "first", picture)
    with served(tmp_path, [*stores.overrides(), f"port={port}"], stores.environment()) as (process, lines):
        tracker = MlflowTracker(TrackingConfig(uri=f"http://127.0.0.1:{port}", flush_s=0.1), run)
        for step in range(1, 1501):  # more than one batch
            tracker.log(step, {"loss": 1.0 / step})
        tracker.artifact(run.folder / "sheet.png", "samples")
        tracker.totals({"castbank.gpu_hours": 1.5})
        tracker.close("FINISHED")
        client = MlflowClient(f"http://127.0.0.1:{port}")
        experiment = client.get_experiment_by_name("castbank")
        (seen,) = client.search_runs([experiment.experiment_id])
        assert seen.info.status == "FINISHED"
        points = client.get_metric_history(seen.info.run_id, "loss")
        assert sorted((p.step, p.value) for p in points) == [(k, 1.0 / k) for k in range(1, 1501)]
        assert seen.data.metrics["castbank.gpu_hours"] == 1.5
        assert seen.data.params == {"seed": "0"}
        downloaded = Path(client.download_artifacts(seen.info.run_id, "samples/sheet.png", str(tmp_path)))
        assert downloaded.read_bytes() == picture
        assert not any(
            secret in words for words in command_lines() for secret in (PASSWORD, SECRET_KEY, KEY_ID)
        )
    assert process.returncode == 0
    spoken = "".join(lines) + (tmp_path / "runs" / "dashboard.log").read_text()
    assert not any(secret in spoken for secret in (PASSWORD, SECRET_KEY, KEY_ID))
    assert "***@127.0.0.1" in lines[0]
    bucket = tracking_lab.client(stores.endpoint)
    kept = {item["Key"]: item["Size"] for item in bucket.list_objects_v2(Bucket=BUCKET)["Contents"]}
    (key,) = [key for key in kept if key.endswith("/artifacts/samples/sheet.png")]
    assert key.startswith("mlflow/") and bucket.get_object(Bucket=BUCKET, Key=key)["Body"].read() == picture
    with psycopg.connect(stores.database) as database:
        (row,) = database.execute(
            "select count(*), count(distinct step) from metrics where key = 'loss'"
        ).fetchall()
        assert row == (1500, 1500)


def tracked(folder: Path, picture: bytes) -> TrackedRun:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    (folder / "sheet.png").write_bytes(picture)
    return TrackedRun("run-lab", folder, {"seed": "0"}, {}, Path("shards"), "d" * 36, {"num_samples": 12})


def command_lines() -> list[str]:
    """Words of every process on this machine, as anybody may read them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:  # it has ended
            continue
    assert any("mlflow" in words for words in found)
    return found


@pytest.mark.slow
def test_a_job_is_tracked_on_postgresql_and_s3(
    stores: Lab, place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """castbank submit to castbank dashboard: a training as a job of two ranks, seen through MLflow alone."""
    import psycopg
    from mlflow import MlflowClient

    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "models").symlink_to(packs.home() / "models")
    monkeypatch.setenv("CASTBANK_HOME", str(tmp_path / "home"))
    port, folder = free_port(), tmp_path / "elsewhere" / "tracked"
    words = place.arguments("unused", "num_steps=6", f"tracking.uri=http://127.0.0.1:{port}")
    job = {"name": "tracked", "folder": str(folder), "resources": {"processes_per_node": 2}}
    job["command"] = [word for word in words if not word.startswith("run=")]
    (tmp_path / "job.json").write_text(json.dumps(job))
    with served(tmp_path, [*stores.overrides(), f"port={port}"], stores.environment()):
        assert main(["submit", str(tmp_path / "job.json"), "--on", "local"]) == 0
        outcome = until(JobFolder(folder).outcome, 300)
        assert outcome.state == "succeeded"
        client = MlflowClient(f"http://127.0.0.1:{port}")
        experiment = client.get_experiment_by_name("castbank")
        (run,) = [
            run for run in client.search_runs([experiment.experiment_id]) if "castbank.job" in run.data.tags
        ]
        assert run.info.status == "FINISHED"
        assert [p.step for p in client.get_metric_history(run.info.run_id, "loss")] == list(range(1, 7))
        assert run.data.tags["castbank.place"] == "local"
        code = json.loads((folder / "job" / "code.json").read_text())
        assert run.data.tags["castbank.code_sha256"] == code["sha256"]
        assert run.data.metrics["castbank.process_hours"] > 0
        assert client.list_artifacts(run.info.run_id, "samples")
    with psycopg.connect(stores.database) as database:
        (row,) = database.execute(
            "select count(*), count(distinct step) from metrics where key = 'loss' and run_uuid = %s",
            (run.info.run_id,),
        ).fetchall()
        assert row == (6, 6)
    written = [p.read_bytes() for p in folder.rglob("*") if p.is_file()]
    assert not any(secret.encode() in data for data in written for secret in (PASSWORD, SECRET_KEY, KEY_ID))
