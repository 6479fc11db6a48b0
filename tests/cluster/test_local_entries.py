"""Entries of the queue on the disk, and telling one process from the next with its number."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from cluster.local_entries import Entry, Process, id_of, load, save, started
from tests.waiting import until


def entry(folder: Path) -> Entry:
    return Entry("a-1", folder, "here", 1, 2, {"PATH": "/bin"}, (folder / "before",))


def test_an_entry_is_read_as_it_was_written_and_only_by_its_owner(tmp_path: Path) -> None:
    full = replace(
        entry(tmp_path), supervisor=Process(7, "b 1"), awaits=Process(8, "b 2"), gpus=(0, 3), starts=2
    )
    old_mask = os.umask(0)
    try:
        for each in (entry(tmp_path), full):
            assert save(tmp_path / "e.json", each) == each == load(tmp_path / "e.json")
    finally:
        os.umask(old_mask)
    assert (tmp_path / "e.json").stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [tmp_path / "e.json"]


def test_the_name_of_a_file_tells_its_job() -> None:
    assert id_of(Path("4999999999-00001-0123456789ab-look-at-3f2a.json")) == "look-at-3f2a"


def test_a_process_is_known_by_its_boot_and_its_tick() -> None:
    """The tick is what psutil computes the process's wall clock time from."""
    boot, tick = started(os.getpid()).split()
    assert len(boot) == 36
    since_boot_s = int(tick) / os.sysconf("SC_CLK_TCK")
    assert psutil.Process().create_time() - psutil.boot_time() == pytest.approx(since_boot_s, abs=2)
    assert Process(os.getpid(), f"{boot} {tick}").alive()
    assert not Process(os.getpid(), f"{boot} {int(tick) - 1}").alive()
    assert not Process(os.getpid(), f"another-boot {tick}").alive()


def test_a_moved_clock_makes_no_process_another(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(os.getpid(), started(os.getpid()))
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert process.alive()


def test_a_process_that_has_ended_is_not_there(tmp_path: Path) -> None:
    """Not even while nobody has reaped it; and its command's name may hold anything."""
    odd = tmp_path / "a) Z 1 (b"
    shutil.copy(shutil.which("cat") or "", odd)
    with subprocess.Popen([odd], stdin=subprocess.PIPE) as running:
        until(lambda: psutil.Process(running.pid).name() == odd.name)
        process = Process(running.pid, started(running.pid))
        assert process.alive()
        assert running.stdin
        running.stdin.close()
        until(lambda: psutil.Process(running.pid).status() == psutil.STATUS_ZOMBIE)
        assert started(running.pid) == ""
        assert not process.alive()
    assert not Process(running.pid, started(running.pid)).alive()
