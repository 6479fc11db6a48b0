"""Jobs for this machine's queue whose supervisors are small scripts."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from cluster.job_folder import JobFolder
from cluster.local_entries import Entry
from cluster.local_queue import Queue, Runner
from cluster.spec import JobSpec
from tests.waiting import until


def scripted(folder: Path, script: str, **changes: object) -> JobSpec:
    """A job whose supervisor is a script that counts its starts in FOLDER/starts."""
    spec = JobSpec(folder.name, folder.name, "local", (sys.executable,), folder, folder.parent)
    spec = replace(spec, **changes)  # type: ignore[arg-type]
    place = JobFolder(folder)
    place.write_spec(spec)
    place.script.write_text(f"echo {spec.id} >> {folder}/starts\n{script}\n")
    return spec


def starts(folder: Path) -> list[str]:
    return (folder / "starts").read_text().split() if (folder / "starts").exists() else []


def only(queue: Queue) -> Entry:
    (entry,) = queue.entries().values()
    return entry


def ran(queue: Queue, runner: Runner) -> None:
    """Start what is to start, and wait for its end, which the runner has not seen yet."""
    runner.step()
    until(lambda: not any(entry.holds() for entry in queue.entries().values()))


DONE = """echo '{{"state": "succeeded", "exit_code": 0, "reason": "", "at_s": 0}}' > {}/job/outcome.json"""
