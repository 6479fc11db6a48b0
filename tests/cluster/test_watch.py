"""Which ranks of an attempt are missed, and since when they are waited for."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from cluster.heartbeats import Heartbeat, note_world, path_of
from cluster.job_folder import JobFolder
from cluster.processes import Child, Group
from cluster.spec import JobSpec, Place, RayOptions, Resources, Stopping
from cluster.watch import Ranks, Seen, watch


class Clock:
    """One that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def ranks_of(folder: Path, place: Place, clock: Clock) -> Ranks:
    """Four, of which two would do."""
    spec = JobSpec(
        "x",
        "x",
        place,
        ("python",),
        folder,
        folder,
        ranks=True,
        resources=Resources(nodes=4),
        stopping=Stopping(hang_s=100),
        ray=RayOptions(min_processes=2),
    )
    return Ranks(spec, "t", clock)


def beat(folder: Path, rank: int, at_s: float) -> None:
    path = path_of(JobFolder(folder).job, rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(Heartbeat(rank, "h", 1, "t", "train", 0, at_s, at_s))))


def test_all_ranks_are_waited_for_from_the_start(tmp_path: Path) -> None:
    clock = Clock()
    ranks = ranks_of(tmp_path, "slurm", clock)
    for clock.now_s in (0.0, 90.0):
        beat(tmp_path, 0, clock.now_s)
        assert ranks.hung() is None
    clock.now_s = 101.0
    hung = ranks.hung()
    assert hung is not None
    assert (hung.kind, hung.rank, hung.reason) == ("hung", 1, "rank 1 of 4 was never heard of in 100 s")


def test_on_ray_those_that_were_placed_are_waited_for_from_then_on(tmp_path: Path) -> None:
    """The wait for room may last for days; and with two nodes gone there are two ranks."""
    clock = Clock()
    ranks, base = ranks_of(tmp_path, "ray", clock), JobFolder(tmp_path).job
    base.mkdir()
    note_world(base, "an earlier attempt", 4)
    for clock.now_s in (0.0, 1e6):
        assert ranks.hung() is None
    note_world(base, "t", 2)
    assert ranks.hung() is None
    for clock.now_s in (1e6 + 90, 1e6 + 180):
        beat(tmp_path, 0, clock.now_s)
        beat(tmp_path, 1, clock.now_s)
        assert ranks.hung() is None
    clock.now_s = 1e6 + 300
    hung = ranks.hung()
    assert hung is not None
    assert "not seen for 120 s" in hung.reason


def test_on_ray_a_placed_rank_that_says_nothing_is_missed(tmp_path: Path) -> None:
    clock = Clock()
    ranks = ranks_of(tmp_path, "ray", clock)
    note_world(JobFolder(tmp_path).job, "t", 2)
    assert ranks.hung() is None
    for clock.now_s in (90.0, 101.0):
        beat(tmp_path, 0, clock.now_s)
        hung = ranks.hung()
    assert hung is not None
    assert hung.reason == "rank 1 of 2 was never heard of in 100 s"


def test_a_file_system_that_does_not_answer_ends_no_attempt(tmp_path: Path) -> None:
    place = JobFolder(tmp_path)
    (place.job / "attempt").mkdir(parents=True)  # reading it is an OSError, as on a file system that is away
    spec = JobSpec("x", "x", "local", ("true",), tmp_path, tmp_path)
    group = Group([Child(("true",), tmp_path / "log")], tmp_path)
    assert watch(spec, "t", group, lambda: False) == Seen(0, "ok", "")
