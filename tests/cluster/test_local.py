"""The local launcher on real processes: outcome, log, cancellation, a job that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.launchers import LAUNCHERS
from cluster.local import LocalLauncher
from cluster.spec import JobSpec


def job(folder: Path, code: str, **environment: str) -> JobSpec:
    return JobSpec("test", (sys.executable, "-u", "-c", code), folder, environment)


def test_a_job_leaves_its_log_and_its_outcome(tmp_path: Path) -> None:
    launcher = LAUNCHERS["local"]()
    assert isinstance(launcher, LocalLauncher)
    assert launcher.state(str(tmp_path / "good")) == "unknown"
    good = launcher.submit(
        job(tmp_path / "good", "import os; print('it is', os.environ['WHO'])", WHO="a 'b'")
    )
    assert list(launcher.follow(good)) == ["it is a 'b'"]
    assert (launcher.state(good), launcher.exit_code(good)) == ("succeeded", 0)
    bad = launcher.submit(job(tmp_path / "bad", "raise SystemExit(75)"))
    assert list(launcher.follow(bad)) == []
    assert (launcher.state(bad), launcher.exit_code(bad)) == ("failed", 75)


def test_cancel_lets_the_job_finish_its_checkpoint(tmp_path: Path) -> None:
    launcher = LocalLauncher()
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('checkpoint'), sys.exit(75)))\n"
        "print('ready'); signal.pause()"
    )
    job_id = launcher.submit(job(tmp_path / "job", code))
    lines = launcher.follow(job_id)
    assert next(lines) == "ready"
    with pytest.raises(RuntimeError, match="still running"):
        launcher.submit(job(tmp_path / "job", code))
    launcher.cancel(job_id)
    assert list(lines) == ["checkpoint"]
    assert launcher.exit_code(job_id) == 75
    launcher.cancel(job_id)


def test_a_killed_job_is_lost_and_can_be_run_again(tmp_path: Path) -> None:
    launcher = LocalLauncher()
    job_id = launcher.submit(job(tmp_path / "job", "import signal; print('ready'); signal.pause()"))
    lines = launcher.follow(job_id)
    assert next(lines) == "ready"
    os.killpg(json.loads((tmp_path / "job" / "process.json").read_text())["pid"], signal.SIGKILL)
    assert list(lines) == []
    assert launcher.state(job_id) == "lost"
    launcher.submit(job(tmp_path / "job", "print('again')"))
    assert list(launcher.follow(job_id)) == ["again"]


def test_the_script_is_plain_bash(tmp_path: Path) -> None:
    text = LocalLauncher().render(JobSpec("name", ("echo", "a b", "$HOME"), tmp_path, {"K": "v w"}))
    assert "export K='v w'" in text
    assert "echo 'a b' '$HOME' &" in text
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
