"""An unusual video as a usual one: closed-GOP H.264 at a constant rate from time zero, upright, 8-bit SDR.

The file has no name, so that a process that is killed leaves nothing behind; it is opened through /proc while the
block lasts. Its frames have the size of the analysis, so that nothing is encoded that nobody will look at.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np

from data_prep.decode import iter_images
from data_prep.records import F64, I32, U8
from data_prep.video.encode import Coding, write_mp4
from data_prep.video.probe import Probe, UnusableError

CODING = Coding(
    "veryfast", "48"
)  # 3 times as fast as medium; size matters less, since the file is thrown away
RATES = tuple(Fraction(*rate) for rate in [(24000, 1001), (30000, 1001), (60000, 1001)]) + tuple(
    Fraction(rate) for rate in (12, 15, 24, 25, 30, 48, 50, 60)
)
MAX_REPEATS = 4.0
"""Frames made for each that the file has, on average; beyond it the rate is an accident (a pause of an hour)."""


@contextmanager
def canonical(found: Probe, long_side_px: int) -> Iterator[Path]:
    """The path of the canonical file of ``found``, valid within the block and this process.

    Raises:
        UnusableError: a frame is damaged, or the rate cannot be made constant.
    """
    rate = constant_rate(found.times_s)
    shown = frame_map(found.times_s, rate)
    with tempfile.TemporaryFile(prefix="castbank-canonical-") as file:
        write_mp4(file, _repeated(found.path, long_side_px, shown), rate, CODING)
        file.flush()
        yield Path(f"/proc/self/fd/{file.fileno()}")


def constant_rate(times_s: F64) -> Fraction:
    """Frames a second that most of the file has: by its median step, a usual rate where one is within 1 %."""
    if len(times_s) < 2:
        return Fraction(25)
    seen = 1.0 / float(np.median(np.diff(times_s)))
    near = min(RATES, key=lambda rate: abs(float(rate) / seen - 1))
    return near if abs(float(near) / seen - 1) < 0.01 else Fraction(seen).limit_denominator(1001)


def frame_map(times_s: F64, rate: Fraction) -> I32:
    """int32[n]: which of the file's frames each frame at the constant rate shows, the one that is on display in the
    middle of its time. times_s: f64[F] from 0.

    Raises:
        UnusableError: the file has so few frames for its length that most would be repetitions.
    """
    num_made = max(1, round(float(times_s[-1]) * float(rate)) + 1)
    if num_made > MAX_REPEATS * len(times_s):
        value = f"{num_made} frames at {float(rate):.3f} fps of {len(times_s)}"
        raise UnusableError("variable_rate", value, f"at most {MAX_REPEATS:g} times as many")
    middles_s = (np.arange(num_made) + 0.5) / float(rate)
    return np.asarray(np.searchsorted(times_s, middles_s, side="right") - 1, np.int32)


def _repeated(path: Path, long_side_px: int, shown: I32) -> Iterator[U8]:
    """The images of a file, each as often as ``shown`` has its number."""
    times = np.bincount(shown)
    for number, (image, _) in enumerate(iter_images(path, long_side_px)):
        for _ in range(int(times[number]) if number < len(times) else 0):
            yield image
