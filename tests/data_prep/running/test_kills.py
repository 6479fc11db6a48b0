"""``kill -9`` of a driver, its raylet or a worker at random points of a run: the bytes are those of a quiet one.

The clips are painted (tests/painted_clips.py) and take a second or two each, so that twenty kills are minutes. What
is lost is counted from when each analysis was begun, which the clips themselves note.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import subprocess
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import psutil
import pytest

from tests.cluster.ray_lab import ray_lab
from tests.painted_clips import analyses, hashes, make_many, start
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

CLIPS, KILLS, SPIN = 30, 20, 4_000_000  # rounds of hashing: two seconds on an idle core
KINDS = ("driver", "raylet", "worker")
LIMIT_S = 600.0


@pytest.fixture(scope="module")
def quiet_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What an undisturbed run gives."""
    folder = tmp_path_factory.mktemp("quiet")
    finish(start(make_many(folder / "corpus", CLIPS, spin=1), folder / "out"))
    return without_ledgers(hashes(folder / "out"))


def without_ledgers(files: dict[str, str]) -> dict[str, str]:
    """All but what says which files it was made from: the clips' files differ by what they are told to note."""
    return {name: sha for name, sha in files.items() if name not in ("manifest.json", "lineage.jsonl")}


def finish(process: subprocess.Popen[str]) -> None:
    try:
        _, said = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
    assert process.returncode == 0, said


def below(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Every process that it has started, and they in turn."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def victim(kind: str, process: subprocess.Popen[str]) -> psutil.Process | None:
    """A process of that kind; None where there is none at the moment."""
    if kind == "driver":
        return psutil.Process(process.pid)
    for child in below(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            if kind == "raylet" and child.name() == "raylet":
                return child
            if kind == "worker" and any("ray::run_batch" in word for word in child.cmdline()):
                return child
    return None


def kill(kind: str, process: subprocess.Popen[str], after_s: float) -> int:
    """Kill one a moment from now, see that a dead driver leaves no process; when, in ns."""
    threading.Event().wait(after_s)  # for nothing: a random moment of what is being worked on
    found = until(lambda: process.poll() is not None or victim(kind, process), LIMIT_S)
    assert isinstance(found, psutil.Process), "the run ended before it could be killed"
    family = below(process)
    at_ns = time.time_ns()
    found.kill()
    if kind == "driver":
        process.communicate()
        until(lambda: not any(member.is_running() for member in family), LIMIT_S)
    return at_ns


def progress(output: Path) -> int:
    """Clips analysed, and one more for each shard of the next generation."""
    return len(analyses(output)) + len(list((output / ".next").glob("*.tar")))


def reach(point: int, output: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the run is that far."""
    until(lambda: progress(output) >= point or process.poll() is not None, LIMIT_S)


def lost_by_kill(log: Path, kills: list[tuple[int, str]]) -> list[int]:
    """Analyses that had to be begun again after each kill, which falls between the two beginnings."""
    begun: dict[str, list[int]] = defaultdict(list)
    for path in log.iterdir():
        name, _, at_ns = path.name.rpartition("-")
        begun[name].append(int(at_ns))
    lost: Counter[int] = Counter()
    for times in begun.values():
        times.sort()
        for before, after in itertools.pairwise(times):
            lost[max(at for at, (when, _) in enumerate(kills) if before < when < after)] += 1
    return [lost[at] for at in range(len(kills))]


def test_twenty_kills_in_one_run_give_the_same_bytes(quiet_run: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    corpus = make_many(tmp_path / "corpus", CLIPS, spin=SPIN, log=str(tmp_path / "log"))
    output, rng = tmp_path / "out", random.Random(20)
    points = [
        *sorted(rng.sample(range(CLIPS - 4), KILLS - 2)),
        CLIPS,
        CLIPS + 3,
    ]  # the last two while packing
    kinds = [KINDS[at % len(KINDS)] for at in range(KILLS)]
    rng.shuffle(kinds)
    kills: list[tuple[int, str]] = []
    process = start(corpus, output, max_attempts=20)
    for point, kind in zip(points, kinds, strict=True):
        if process.poll() is not None:
            process = start(corpus, output, max_attempts=20)
        reach(point, output, process)
        kills.append((kill(kind, process, rng.uniform(0, 1) if point < CLIPS else 0), kind))
    finish(process if process.poll() is None else start(corpus, output, max_attempts=20))
    lost = lost_by_kill(tmp_path / "log", kills)
    for point, (_, kind), number in zip(points, kills, lost, strict=True):
        print(f"{kind:7} killed at {point:2} of {CLIPS} clips: {number} analyses begun again")
    assert without_ledgers(hashes(output)) == quiet_run
    assert all(
        number <= (1 if kind == "worker" else 2) for number, (_, kind) in zip(lost, kills, strict=True)
    )


def test_two_nodes_give_the_bytes_of_one_though_one_dies(quiet_run: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    corpus = make_many(tmp_path / "corpus", CLIPS, spin=SPIN, log=str(tmp_path / "log"))
    with ray_lab(head_cpus=1) as lab:
        lab.add_node(1)
        lab.wait(2)
        process = start(corpus, tmp_path / "out", num_workers=0, ray=lab.gcs)
        until(lambda: len(analyses(tmp_path / "out")) > 10 or process.poll() is not None, LIMIT_S)
        lab.nodes[1].kill()
        finish(process)
    assert without_ledgers(hashes(tmp_path / "out")) == quiet_run
    assert len(list((tmp_path / "log").iterdir())) <= CLIPS + 1  # what the dead node was at
