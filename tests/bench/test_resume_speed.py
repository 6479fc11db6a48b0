"""How long a run takes from its command to its first step: resumed against cold, in turns, within one run."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.training.run_folder import read_metrics
from tests.small_shards import make_shards
from tests.waiting import until

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]
REPEATS = 5
EXIT_REQUEUE = 75
CONFIG = """
num_steps: 100000
batch_size: 4
data: {num_frames: 3, frame_stride: 2}
checkpoints: {every_steps: 10}
tracking: {kind: none}
"""  # of the tiny family as it comes: 3.3 M parameters and its identity network, all trained


def to_first_step(arguments: list[str], run: Path) -> float:
    """Seconds from the command to the first step that it adds; then it is asked to end, with a checkpoint."""
    before = num_steps(run)
    start_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", "train", *arguments, f"run={run}"], env=os.environ
    )
    until(lambda: num_steps(run) > before or process.poll() is not None, 300)
    spent_s = time.perf_counter() - start_s
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == EXIT_REQUEUE
    return spent_s


def num_steps(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    return len(read_metrics(metrics)) if metrics.is_file() else 0


def test_a_resumed_run_comes_to_its_first_step_as_soon_as_a_new_one(face_home: Path, tmp_path: Path) -> None:
    shards = make_shards(tmp_path / "shards", 24)
    (tmp_path / "small.yaml").write_text(CONFIG)
    arguments = ["--config", str(tmp_path / "small.yaml"), f"data.shards={shards}"]
    to_first_step(
        arguments, tmp_path / "first"
    )  # keeps the faces' features, which neither is to be charged for
    cold_s, resumed_s = [], []
    for repeat in range(REPEATS):
        run = tmp_path / f"run-{repeat}"
        cold_s.append(to_first_step(arguments, run))
        resumed_s.append(to_first_step(arguments, run))
    ratio = statistics.median(resumed_s) / statistics.median(cold_s)
    print(f"\ncold {sorted(cold_s)}, resumed {sorted(resumed_s)}; ratio of medians {ratio:.2f}")
    assert ratio <= 1.2
