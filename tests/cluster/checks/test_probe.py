"""What a node says of itself, by a plain Python that is handed the program's text, as nodes are."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from cluster.checks import probe
from cluster.checks.finding import NOT_THERE, TOO_LATE, ask
from cluster.checks.probe import Order
from cluster.checks.trial import trial


def as_on_a_node(order: Order) -> probe.NodeReport:
    """The report of a process that knows nothing of ours."""
    done = subprocess.run(
        [sys.executable, "-P", "-I", "-", json.dumps(asdict(order))],
        input=Path(probe.__file__).read_text(encoding="utf-8"),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd="/",
    )
    (report,) = probe.from_text(f"a login script says hello\n{done.stdout}and good bye\n")
    return report


def test_a_node_of_this_machine(tmp_path: Path) -> None:
    with trial(tmp_path) as tried, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/health"
        report = as_on_a_node(Order(str(tried.folder), tried.token, url))
        assert tried.sees(platform.node())
    assert (report.host, report.python) == (platform.node(), platform.python_version())
    assert report.cores == len(os.sched_getaffinity(0))
    assert report.missing == [] and report.memory_gib > 0.5
    assert report.folder.visible and report.folder.renames and not report.folder.problem
    assert report.folder.lock == "held"
    assert report.folder.write_mib_s > 0
    assert "refused" in report.url
    assert not list(tmp_path.iterdir())


def test_another_folder_of_the_same_name_is_not_taken_for_the_shared_one(tmp_path: Path) -> None:
    with trial(tmp_path) as tried:
        assert as_on_a_node(Order(str(tried.folder), "another")).folder == probe.Folder(
            problem="another folder is there"
        )
        folder = as_on_a_node(Order(str(tmp_path / "none"), tried.token)).folder
    assert not folder.visible and folder.problem == "No such file or directory"


def test_a_lock_that_nobody_holds_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert probe.try_lock(path) == "free"
    with path.open() as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert probe.try_lock(path) == "held"
    assert probe.try_lock(tmp_path / "none" / "lock") == "No such file or directory"


def test_gpus_are_what_the_driver_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "nvidia-smi"
    fake.write_text(
        "#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 550.54.15'\necho 'NVIDIA H100 80GB HBM3, 550.54.15'\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert probe.accelerators() == (["NVIDIA H100 80GB HBM3"] * 2, "550.54.15")
    fake.write_text(
        "#!/bin/sh\necho 'NVIDIA-SMI has failed, because it could not communicate with the driver.'\nexit 9\n"
    )
    assert probe.accelerators() == ([], "")


def test_programs_are_not_waited_for_for_ever() -> None:
    assert ask(["no-such-program"]).code == NOT_THERE
    late = ask(["sleep", "60"], timeout_s=0.1)
    assert (late.code, late.why) == (TOO_LATE, "no answer within 0.1 s")
    assert ask(["sh", "-c", "echo one >&2; echo two >&2; exit 3"]).why == "two"
    assert ask(["cat"], stdin="text").out == "text"
