"""A real MLflow server is stopped for a minute in the middle of a run: nothing is lost, and nobody waits."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.config import TrackingConfig
from pipeline.tracking.mlflow_tracker import MlflowTracker
from pipeline.tracking.tracker import TrackedRun
from tests.waiting import until

OUTAGE_S = 60.0
BETWEEN_STEPS_S = 0.25


@contextmanager
def server(root: Path, port: int) -> Iterator[None]:
    """An MLflow server on a folder; killed, with all its workers, at the end."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{root / 'server.db'}", "--workers", "1"]
    command += ["--artifacts-destination", str(root / "artifacts")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (root / "server.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment, start_new_session=True, cwd=root
        )
    try:
        until(lambda: answers(port), 120)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.slow
def test_a_minute_without_the_server_loses_no_point_and_costs_no_wait(tmp_path: Path) -> None:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port = int(asked.getsockname()[1])
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("seed: 0\n")
    run = TrackedRun("run-1", folder, {"seed": "0"}, {}, Path("shards"), "d" * 36, {})
    tracker = MlflowTracker(TrackingConfig(uri=f"http://127.0.0.1:{port}", flush_s=0.5), run)
    waits: list[float] = []
    pace = threading.Event()  # never set: a step takes its time

    def steps(seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            began_s = time.perf_counter()
            tracker.log(len(waits) + 1, {"loss": 1.0 / (len(waits) + 1)})
            waits.append(time.perf_counter() - began_s)
            pace.wait(BETWEEN_STEPS_S)

    with server(tmp_path, port):
        steps(5)
    steps(OUTAGE_S)
    with server(tmp_path, port):
        steps(5)
        tracker.close("FINISHED")
        from mlflow import MlflowClient

        client = MlflowClient(f"http://127.0.0.1:{port}")
        (found,) = client.search_runs([client.get_experiment_by_name("castbank").experiment_id])
        history = client.get_metric_history(found.info.run_id, "loss")
    arrived = sorted((point.step, point.value) for point in history)
    expected = [(k, 1.0 / k) for k in range(1, len(waits) + 1)]
    print(f"{len(waits)} steps, {len(expected) - len(arrived)} lost, longest wait {max(waits) * 1e3:.1f} ms")
    assert arrived == expected
    assert found.info.status == "FINISHED"
