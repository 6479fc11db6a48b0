"""What running clips on Ray costs beside the work itself: scheduling, a second worker, a run with nothing to do.

Run by ``make bench`` on an idle machine; figures are printed. Both sides of each ratio are taken in one run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from data_prep.analysis.analyse import analyse
from data_prep.config import IngestConfig, PrepareConfig, RunConfig
from data_prep.flow import prepare
from data_prep.ingest.manifest import read_clips
from data_prep.running.isolation import Failure, Limits, Task, Workers
from data_prep.running.work import AnalyseJob, ClipWork, analyse_clip

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

TRIVIAL, MANY, EARLY = 20_000, 1_000_000, 100_000
ROUNDS = 2


@pytest.fixture(scope="module", autouse=True)
def _by_value() -> None:
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # this file is not importable in a worker


def trivial(number: int) -> int:
    """A clip that takes no time."""
    return number


def tasks(count: int) -> Iterator[Task[int]]:
    return (Task(f"clip-{number:08d}", number, memory_bytes=1) for number in range(count))


def test_a_thousand_trivial_clips_a_second_are_scheduled(tmp_path: Path) -> None:
    with Workers(2) as workers:
        list(workers.run(trivial, tasks(10), Limits(1, 60), tmp_path))
        start_s = time.perf_counter()
        done = sum(1 for _ in workers.run(trivial, tasks(TRIVIAL), Limits(1, 60), tmp_path))
        per_s = done / (time.perf_counter() - start_s)
    print(f"\n{done} trivial clips, 2 workers: {per_s:.0f} clips/s")
    assert per_s >= 1000


def test_the_drivers_memory_does_not_grow_with_the_clips(tmp_path: Path) -> None:
    me, early_mb, most_mb = psutil.Process(), 0.0, 0.0
    start_s = time.perf_counter()
    with Workers(2) as workers:
        for done, _ in enumerate(workers.run(trivial, tasks(MANY), Limits(1, 60), tmp_path), 1):
            if done % 10_000 == 0:
                now_mb = me.memory_info().rss / 1e6
                early_mb = now_mb if done == EARLY else early_mb
                most_mb = max(most_mb, now_mb)
    per_s = MANY / (time.perf_counter() - start_s)
    print(f"\n{MANY} clips, {per_s:.0f}/s: driver {early_mb:.0f} MB at {EARLY}, {most_mb:.0f} MB at most")
    assert most_mb <= 1.05 * early_mb


def jobs(footage: Path, output: Path) -> list[Task[AnalyseJob]]:
    """Every clip of the footage ``ROUNDS`` times, each to be analysed into a folder of its own."""
    clips, _ = read_clips(str(footage / "short.csv"), str(footage / "clips"), IngestConfig())
    desk = output / "desk"
    desk.mkdir(parents=True)
    config = PrepareConfig(manifest="", output=str(output))
    made = []
    for at in range(ROUNDS):
        for clip in clips:
            work = ClipWork(clip, str(at), output / f"{clip.id}-{at}")
            made.append(Task(f"{clip.id}-{at}", AnalyseJob(work, config, desk, analyse)))
    return made


def timed(num_workers: int, footage: Path, output: Path) -> tuple[float, float]:
    """Seconds that the clips took with workers whose models are loaded, and seconds of work in them."""
    todo = jobs(footage, output)
    with Workers(num_workers) as workers:
        warm = jobs(footage, output / "warm")[:num_workers]
        list(workers.run(analyse_clip, warm, Limits(1, 600), output))
        before_s, start_s = workers.worked_s()[0], time.perf_counter()
        results = [result for _, result in workers.run(analyse_clip, todo, Limits(1, 600), output)]
        spent_s = time.perf_counter() - start_s
        assert not any(isinstance(result, Failure) for result in results)
        return spent_s, workers.worked_s()[0] - before_s


def test_ray_costs_little_and_a_second_worker_is_worth_it(
    footage: Path, face_home: Path, tmp_path: Path
) -> None:
    one_s, worked_s = timed(1, footage, tmp_path / "one")
    two_s, _ = timed(2, footage, tmp_path / "two")
    overhead = one_s / worked_s - 1
    print(
        f"\n{18 * ROUNDS} clips: one worker {one_s:.1f} s, {worked_s:.1f} s of them work, overhead {overhead:.2%}"
    )
    print(f"two workers {two_s:.1f} s: {one_s / two_s:.2f} times as fast")
    assert overhead <= 0.02
    assert one_s / two_s >= 1.8


def test_a_run_with_nothing_to_do_takes_a_hundredth(footage: Path, face_home: Path, tmp_path: Path) -> None:
    config = PrepareConfig(
        manifest=str(footage / "short.csv"),
        clips=str(footage / "clips"),
        output=str(tmp_path / "out"),
        run=RunConfig(num_workers=2),
    )
    took_s = []
    for _ in range(2):
        start_s = time.perf_counter()
        prepare(config, lambda *_: None)
        took_s.append(time.perf_counter() - start_s)
    print(f"\nfirst {took_s[0]:.1f} s, again {took_s[1] * 1000:.0f} ms: {took_s[1] / took_s[0]:.2%}")
    assert took_s[1] <= 0.01 * took_s[0]
