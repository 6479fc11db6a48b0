"""Where in the code every rank of a running job is: asked by a file, answered by the ranks themselves.

A rank's pulse thread answers also while its main thread is stuck. One that does not answer, because the whole
process is frozen, is looked at from outside with py-spy where it runs on this host.
"""

from __future__ import annotations

import contextlib
import faulthandler
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from cluster.heartbeats import DONE, Heartbeat, base_of, read
from cluster.job_folder import write_atomic

WANTED, ANSWERS = "stacks-wanted", "stacks"
POLL_S = 0.1
LOOK_S = 10.0  # longest wait for py-spy


def answer(base: Path, rank: int, answered: str) -> str:
    """A rank's part: write its stacks if somebody asks; the request that was answered last. Never an error."""
    asked = ""
    with contextlib.suppress(OSError):
        asked = (base / WANTED).read_text(encoding="utf-8")
    if asked in ("", answered):
        return answered
    path = base / ANSWERS / f"rank-{rank}.txt"
    aside = path.with_name(f".{path.name}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("w", encoding="utf-8") as stream:
            stream.write(f"{asked}\n")
            stream.flush()
            faulthandler.dump_traceback(stream, all_threads=True)
        aside.replace(path)
    return asked


def ask_for_stacks(folder: Path, wait_s: float) -> dict[int, str]:
    """The stacks of all ranks of a job, or of a run outside of one, by rank; ranks that are done are left out.

    Args:
        folder: the job's or the run's.
        wait_s: how long ranks may take to answer; their threads look every two seconds.

    Returns:
        Per rank its stacks, or why they cannot be had.
    """
    base = base_of(folder)
    beats = [beat for beat in read(base / "heartbeats") if beat.phase != DONE]
    request, until_s = secrets.token_hex(8), time.monotonic() + wait_s
    try:
        write_atomic(base / WANTED, request)
        found = _answers(base, beats, request)
        while len(found) < len(beats) and time.monotonic() < until_s:
            time.sleep(POLL_S)
            found = _answers(base, beats, request)
    finally:
        (base / WANTED).unlink(missing_ok=True)
    return {beat.rank: found.get(beat.rank) or _from_outside(beat, wait_s) for beat in beats}


def _answers(base: Path, beats: Iterable[Heartbeat], request: str) -> dict[int, str]:
    found = {}
    for beat in beats:
        with contextlib.suppress(OSError):
            said, _, text = (
                (base / ANSWERS / f"rank-{beat.rank}.txt").read_text(encoding="utf-8").partition("\n")
            )
            if said == request:
                found[beat.rank] = text
    return found


def _from_outside(beat: Heartbeat, wait_s: float) -> str:
    silent = f"rank {beat.rank} on {beat.host} did not answer within {wait_s:g} s"
    if beat.host != socket.gethostname():
        return f"{silent}; run py-spy dump --pid {beat.pid} there"
    program = shutil.which("py-spy") or str(Path(sys.executable).with_name("py-spy"))
    try:
        done = subprocess.run(
            [program, "dump", "--nonblocking", "--pid", str(beat.pid)],
            capture_output=True,
            text=True,
            timeout=LOOK_S,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        return f"{silent}; py-spy: {error.stderr.strip()}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{silent}; py-spy: {error}"
    return f"{silent}; seen from outside by py-spy:\n{done.stdout}"
