"""What preparation costs beside the two things it cannot do without, and that its memory does not grow.

Run by ``make bench`` on an idle machine; figures are printed. Both sides of each comparison are taken in one run.
"""

from __future__ import annotations

import csv
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from data_prep.config import PrepareConfig, RunConfig
from data_prep.decode import iter_frames
from data_prep.faces import FaceAnalyser, analyser_for
from data_prep.faces.geometry import aligned_crop
from data_prep.flow import prepare
from data_prep.records import U8

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

REPEATS = 3
ALIKE = ("garage-01", "garage-02", "launch-01", "launch-02", "call-01", "call-02", "cafe-01", "cafe-02")


def _prepare(manifest: Path, footage: Path, output: Path) -> float:
    """Seconds from nothing to shards with one worker, Ray's start included."""
    config = PrepareConfig(
        manifest=str(manifest), clips=str(footage / "clips"), output=str(output), run=RunConfig(num_workers=1)
    )
    start_s = time.perf_counter()
    prepare(config, lambda *_: None)
    return time.perf_counter() - start_s


def _read(footage: Path, look: Callable[[U8], object]) -> float:
    """Seconds that reading every frame and looking at it takes, in this process."""
    start_s = time.perf_counter()
    for path in sorted((footage / "clips").glob("*.mp4")):
        for chunk in iter_frames(path):
            for image in chunk.frames:
                look(image)
    return time.perf_counter() - start_s


def _in_turns(footage: Path, look: Callable[[U8], object], what: str, outputs: Path) -> float:
    """How many times as long the whole of preparation takes, shards and Ray's start included; of medians."""
    base_s, whole_s = [], []
    for repeat in range(REPEATS):
        base_s.append(_read(footage, look))
        whole_s.append(_prepare(footage / "short.csv", footage, outputs / f"run-{repeat}"))
    ratio = statistics.median(whole_s) / statistics.median(base_s)
    print(f"\nprepare, one worker: {_seconds(whole_s)}; {what}: {_seconds(base_s)}")
    print(f"medians, prepare / {what}: {ratio:.2f}; {what} / prepare: {1 / ratio:.2f}")
    return ratio


@pytest.fixture(scope="module")
def analyser(face_home: Path) -> FaceAnalyser:
    defaults = PrepareConfig(manifest="", output="").faces
    return analyser_for(defaults.pack, (defaults.det_width, defaults.det_height), face_home)


def test_prepare_costs_little_beside_decoding_detection_and_recognition(
    footage: Path, analyser: FaceAnalyser, tmp_path: Path
) -> None:
    """Against what a script does that knows neither which frames nor which faces need it: all of them."""

    def recognise(image: U8) -> None:
        crops = [aligned_crop(image, face.landmarks_px) for face in analyser.detect(image)]
        if crops:
            analyser.embed(np.stack(crops))

    assert 1 / _in_turns(footage, recognise, "decoding + detection + recognition", tmp_path) >= 0.9


def test_prepare_takes_at_most_twice_decoding_and_detection(
    footage: Path, analyser: FaceAnalyser, tmp_path: Path
) -> None:
    assert _in_turns(footage, analyser.detect, "decoding + detection", tmp_path) <= 2


def test_a_worker_needs_no_more_memory_for_twice_the_clips(footage: Path, tmp_path: Path) -> None:
    peaks_mb = []
    for count in (len(ALIKE) // 2, len(ALIKE)):
        manifest = _excerpt(footage / "short.csv", tmp_path / f"{count}.csv", ALIKE[:count])
        with _worker_peak_mb() as peak:
            _prepare(manifest, footage, tmp_path / f"of-{count}")
        peaks_mb.append(max(peak.values()))
        print(f"\n{count} clips: worker's peak {peaks_mb[-1]:.0f} MB", end="")
    print()
    assert peaks_mb[1] <= 1.1 * peaks_mb[0]


def _seconds(times_s: list[float]) -> str:
    return f"median {statistics.median(times_s):.1f} s of {', '.join(f'{t:.1f}' for t in times_s)}"


def _excerpt(table: Path, path: Path, clip_ids: tuple[str, ...]) -> Path:
    """A manifest with some rows of another."""
    with table.open(encoding="utf-8-sig", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["clip_id"].removesuffix(".mp4") in clip_ids]
    with path.open("w", newline="", encoding="utf-8-sig") as out:
        writer = csv.DictWriter(out, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@contextmanager
def _worker_peak_mb() -> Iterator[dict[int, float]]:
    """Peak resident memory by process id of every Ray worker below this process that had a task."""
    peaks: dict[int, float] = {}
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.2):
            for process in psutil.Process().children(recursive=True):
                status = Path(f"/proc/{process.pid}/status")
                with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):  # it just ended
                    title = " ".join(process.cmdline())
                    if "ray::" in title and "IDLE" not in title:
                        peaks[process.pid] = _high_water_mb(status.read_text())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peaks
    finally:
        stop.set()
        watcher.join()


def _high_water_mb(status: str) -> float:
    """VmHWM of a /proc/PID/status, the kernel's own peak; 0 for a process that is just ending."""
    lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) / 1024 if lines else 0.0
