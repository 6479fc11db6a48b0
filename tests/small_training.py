"""A training small enough for tests: its shards, its configuration, and how it is started and watched."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.__main__ import main
from pipeline.training.run_folder import read_metrics
from pipeline.training.trainer import MEASURED

NUM_STEPS = 16
SMALL = f"""
num_steps: {NUM_STEPS}
batch_size: 4
model:
  family:
    tiny: {{num_layers: 1, num_heads: 2, head_dim: 16, ffn_dim: 32, text_tokens: 8, text_dim: 16}}
  identity: {{tokens_per_character: 2, width: 16, encoder_layers: 1, num_heads: 2}}
data: {{num_frames: 3, frame_stride: 2}}
checkpoints: {{every_steps: 4}}
tracking: {{flush_s: 0.2}}
"""


@dataclass(frozen=True)
class Workplace:
    """A folder with small shards, a configuration, and one run trained to its end."""

    root: Path

    def arguments(self, run: str, *overrides: str) -> list[str]:
        places = [f"run={self.root / 'runs' / run}", f"data.shards={self.root / 'shards'}"]
        return ["train", "--config", str(self.root / "small.yaml"), *places, *overrides]

    def folder(self, run: str) -> Path:
        return self.root / "runs" / run

    def curve(self, run: str) -> list[dict[str, float]]:
        lines = read_metrics(self.folder(run) / "metrics.jsonl")
        return [{name: value for name, value in line.items() if name not in MEASURED} for line in lines]


def start(arguments: list[str], environment: Mapping[str, str] | None = None, log: Path | None = None) -> Any:
    """castbank in a process of its own, forked from the server that has imported the heavy libraries."""
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=exit_with_code, args=(arguments, dict(environment or {}), log))
    process.start()
    return process


def exit_with_code(arguments: list[str], environment: Mapping[str, str], log: Path | None) -> None:
    """What the process does. Signals come to it as to one that a shell has started: the fork server may have been
    started while they were blocked, and what it forks begins as it did."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
    if log is not None:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
    os.environ.update(environment)
    os._exit(main(arguments))


def wait_until(happened: Callable[[], bool], process: Any) -> None:
    """Until something another process does is seen on disk; fails where that process ends first."""
    pause = threading.Event()
    while not happened():
        assert process.is_alive(), f"ended early with {process.exitcode}"
        pause.wait(0.02)
