"""How long submitting, listing and the queue itself take; whole processes, as a person would wait for them."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.job_folder import JobFolder
from cluster.local_queue import own_queue
from cluster.registry import Registry
from cluster.spec import JobSpec, Resources
from tests.small_shards import make_shards
from tests.waiting import until

pytestmark = pytest.mark.bench
NUM_JOBS, REPEATS = 1000, 5


def castbank(home: Path, *words: str) -> float:
    """Seconds that a command takes, from its start to its end."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "jobs", *words],
        env=os.environ | {"CASTBANK_HOME": str(home)},
        capture_output=True,
        check=True,
    )
    return time.perf_counter() - started


def test_a_thousand_waiting_jobs_are_listed_in_two_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first asks for more than there is, so that none of them starts."""
    home = tmp_path / "home"
    monkeypatch.setenv("CASTBANK_HOME", str(home))
    queue, registry = own_queue(), Registry(home / "jobs")
    first = JobSpec("job-0", "job", "local", (sys.executable, "-c", ""), tmp_path / "0", tmp_path)
    for number in range(NUM_JOBS):
        spec = replace(first, id=f"job-{number}", name=f"job {number}", folder=tmp_path / str(number))
        if number == 0:
            spec = replace(spec, resources=Resources(cpus_per_process=10**6))
        place = JobFolder(spec.folder)
        place.write_spec(spec)
        place.write_submitted("local", spec.id)
        queue.add(spec)
        registry.add(spec.id, spec.folder)
    took = statistics.median(castbank(home, "jobs") for _ in range(REPEATS))
    print(f"\ncastbank jobs, {NUM_JOBS} waiting: {took:.2f} s (median of {REPEATS})")
    for entry in queue.entries().values():
        JobFolder(entry.folder).cancelled.touch()
    assert took < 2


def test_a_local_job_costs_little_more_than_its_command(tmp_path: Path) -> None:
    """The same command by itself and as a job, from before submit to the job's outcome, in turn."""
    make_shards(tmp_path / "shards", num_samples=2)
    home, submits, jobs, alone = tmp_path / "home", [], [], []
    for number in range(REPEATS):
        words = ["report", str(tmp_path / "shards"), "--output", str(tmp_path / "page.html")]
        alone.append(castbank(home, *words))
        folder = tmp_path / f"job-{number}"
        job = {"name": f"job {number}", "folder": str(folder), "command": words}
        (tmp_path / "job.yaml").write_text(json.dumps(job))
        started = time.perf_counter()
        submits.append(castbank(home, "submit", str(tmp_path / "job.yaml"), "--on", "local"))
        outcome = until(JobFolder(folder).outcome)
        jobs.append(time.perf_counter() - started)
        assert outcome.state == "succeeded"
    overhead = statistics.median(job - by_itself for job, by_itself in zip(jobs, alone, strict=True))
    print(
        f"\nsubmit {statistics.median(submits):.2f} s; a job {statistics.median(jobs):.2f} s, its command alone "
        f"{statistics.median(alone):.2f} s: overhead {overhead:.2f} s (medians of {REPEATS})"
    )
    assert statistics.median(submits) < 2
    assert overhead < 3
