"""A stand-in for a training's rank: counts steps in a file, one line each, and can be stopped and go on.

It behaves as ``castbank train`` does towards its job: a heartbeat per step, a checkpoint and 75 on SIGTERM or
SIGUSR1, and the end as soon as another attempt has claimed the job. Words: folder, steps to do, seconds per step,
and, where it is to fail, ``fail-at=RANK:STEP:CODE`` (once) or ``hang-at=RANK:STEP`` (once).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

FENCED = 1


def main(folder: Path, steps: int, step_s: float, trouble: str) -> int:
    rank, token = int(os.environ["SLURM_PROCID"]), os.environ["CASTBANK_ATTEMPT"]
    job = Path(os.environ["CASTBANK_JOB"]) / "job"
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: asked.set())
    checkpoint = folder / f"rank-{rank}.txt"
    done = len(checkpoint.read_text().splitlines()) if checkpoint.exists() else 0
    for step in range(done + 1, steps + 1):
        beat(job, rank, token, step - 1, "train")
        _trouble(folder, trouble, rank, step)
        if asked.wait(step_s):
            print(f"rank {rank}: stopped after step {step - 1}", flush=True)
            return 75
        if (job / "attempt").read_text() != token:
            print(f"rank {rank}: fenced off after step {step - 1}", flush=True)
            return FENCED
        with checkpoint.open("a") as stream:
            stream.write(f"{step} {token}\n")
    beat(job, rank, token, steps, "done")
    return 0


def beat(job: Path, rank: int, token: str, step: int, phase: str) -> None:
    now_s = time.time()
    record = {"rank": rank, "host": os.environ["SLURMD_NODENAME"], "pid": os.getpid(), "token": token}
    record |= {"phase": phase, "step": step, "step_at_s": now_s, "alive_at_s": now_s}
    (job / "heartbeats").mkdir(parents=True, exist_ok=True)
    aside = job / "heartbeats" / f".{rank}-{token}"
    aside.write_text(json.dumps(record))
    aside.replace(job / "heartbeats" / f"rank-{rank}.json")


def _trouble(folder: Path, trouble: str, rank: int, step: int) -> None:
    """Fail or hang, once, where the words say so."""
    kind, _, where = trouble.partition("=")
    who, at, *code = [int(part) for part in where.split(":")] if where else [-1, -1]
    mark = folder / f"{kind}-once"
    if (rank, step) == (who, at) and not mark.exists():
        mark.touch()
        if kind == "hang-at":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
            threading.Event().wait()
        sys.exit(code[0])


if __name__ == "__main__":
    sys.exit(
        main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4] if sys.argv[4:] else "")
    )
