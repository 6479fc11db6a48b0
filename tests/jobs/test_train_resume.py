"""castbank train, interrupted in every way that a cluster knows, against the run that nobody disturbed; the largest
differences are printed (pytest -s)."""

from __future__ import annotations

import os
import random
import signal
import threading
from typing import Any

import pytest

from jobs.__main__ import main
from tests.small_training import Workplace, start

pytestmark = pytest.mark.slow
NUM_KILLS, NUM_STEPS = 10, 240  # seconds of training, so that a signal comes before the end
LONG = (f"num_steps={NUM_STEPS}", "tracking.kind=none", "ema.decay=0.9")


@pytest.fixture(scope="module")
def undisturbed(place: Workplace) -> Workplace:
    assert main(place.arguments("long", *LONG)) == 0
    return place


def started(place: Workplace, run: str, *overrides: str) -> Any:
    return start(place.arguments(run, *LONG, *overrides))


def reached(place: Workplace, run: str, step: int, process: Any) -> None:
    """Until this process, not an earlier one, has done an update numbered ``step`` or later, or has ended."""
    metrics, pause = place.folder(run) / "metrics.jsonl", threading.Event()
    before = metrics.stat().st_mtime_ns if metrics.is_file() else 0

    def done() -> bool:
        new = metrics.is_file() and metrics.stat().st_mtime_ns != before
        return new and bool(curve := place.curve(run)) and curve[-1]["step"] >= step

    while process.is_alive() and not done():
        pause.wait(0.01)


def differences(place: Workplace, run: str) -> dict[str, float]:
    """Largest difference of each scalar, over all steps, from the run that was left alone."""
    whole, other = place.curve("long"), place.curve(run)
    assert [line["step"] for line in other] == list(range(1, NUM_STEPS + 1))
    found: dict[str, float] = {}
    for a, b in zip(whole, other, strict=True):
        assert a.keys() == b.keys()  # noise levels and people come in the same order
        for name in a:
            found[name] = max(found.get(name, 0.0), abs(a[name] - b[name]))
    return found


def test_killed_at_ten_random_steps_nothing_is_different(undisturbed: Workplace) -> None:
    place = undisturbed
    rng, killed_at = random.Random(7), []
    while len(killed_at) < NUM_KILLS:
        process = started(place, "kills")
        reached(place, "kills", rng.randrange(1, NUM_STEPS - 1), process)
        process.kill()
        process.join()
        killed_at.append(int(place.curve("kills")[-1]["step"]))
    assert main(place.arguments("kills", *LONG)) == 0
    gaps = differences(place, "kills")
    print(f"\nkill -9 after steps {killed_at}: largest difference of any scalar {max(gaps.values())}")
    assert max(gaps.values()) == 0  # so the samples, too, came in the same order


def stop_and_go(place: Workplace, run: str, ranks: list[int]) -> list[int]:
    """One number of ranks after the other, each asked by SIGTERM to stop; the exit codes."""
    codes, each = [], NUM_STEPS // len(ranks)
    for turn, number in enumerate(ranks):
        process = started(place, run, f"engine.num_processes={number}")
        if turn < len(ranks) - 1:
            reached(place, run, (turn + 1) * each - 1, process)
            os.kill(process.pid, signal.SIGTERM)
        process.join()
        codes.append(process.exitcode)
    return codes


@pytest.mark.parametrize(
    ("ranks", "limit"), [([2, 2], 0.0), ([2, 1], 1e-5), ([1, 2], 1e-5), ([2, 1, 2], 1e-5)]
)
def test_stopped_by_sigterm_and_gone_on_with_as_many_ranks_or_others(
    ranks: list[int], limit: float, undisturbed: Workplace
) -> None:
    place = undisturbed
    run = f"ranks-{'-'.join(map(str, ranks))}"
    codes = stop_and_go(place, run, ranks)
    assert codes == [75] * (len(ranks) - 1) + [0]
    gaps = differences(place, run)
    print(f"\nranks {ranks}: loss {gaps['loss']:.1e}, share of outside faces {gaps['cross_face_share']:.1e}")
    assert gaps["loss"] <= limit
    assert gaps["cross_face_share"] <= 1e-6  # a fraction that each batch's samples decide: the same order
