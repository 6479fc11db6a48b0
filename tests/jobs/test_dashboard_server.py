"""The keeper of a server that is a master and a worker which no SIGTERM ends, as small stand-ins for MLflow's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from jobs import dashboard
from tests.waiting import until

ROOT = Path(__file__).resolve().parent.parent.parent
MASTER = """
import signal, subprocess, sys
assert sys.argv[1:] == ["server", "--port", "1"]
worker = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
subprocess.Popen([sys.executable, "-c", worker])
signal.pause()
"""


def members(group: int) -> list[psutil.Process]:
    """The living processes of a group, oldest first."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return sorted(found, key=lambda process: process.create_time())


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """As the dashboard starts it; its worker is up."""
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "__init__.py").touch()
    (tmp_path / "mlflow" / "__main__.py").write_text(MASTER)
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs.dashboard_server", "--port", "1"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield process
        process.stdout.close()
    finally:
        dashboard.stop(process)


def test_no_process_outlives_the_dashboard(keeper: subprocess.Popen[bytes]) -> None:
    assert len(members(keeper.pid)) == 3
    assert keeper.stdin is not None
    keeper.stdin.close()  # as the kernel does where the dashboard is killed
    until(lambda: not members(keeper.pid))


@pytest.mark.parametrize("who", [0, 1], ids=["keeper", "master"])
def test_no_process_outlives_one_above_it_that_is_killed(keeper: subprocess.Popen[bytes], who: int) -> None:
    """The dashboard hears of it, and ends the others."""
    members(keeper.pid)[who].kill()
    assert keeper.wait(60) == (128 + signal.SIGKILL if who else -signal.SIGKILL)
    assert members(keeper.pid)
    dashboard.stop(keeper)
    until(lambda: not members(keeper.pid))
