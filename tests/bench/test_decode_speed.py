"""What decoding costs against ffmpeg's own, how many frames are decoded for each that is needed, and its memory.

Run by ``make bench`` on an idle machine; both sides of each ratio are taken in one run, in turns.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.decode import fitting_reader, num_decoded
from data_prep.video.probe import probe

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

WIDTH_PX, HEIGHT_PX, NUM_FRAMES, LONG_SIDE_PX, CHUNK_BYTES = 3840, 2160, 120, 1280, 128 * 2**20
TURNS = 3
READ = """
import sys
from pathlib import Path
from data_prep.decode import iter_frames
path, reader, long_side_px, chunk_bytes = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
import av, decord
import time
def peak_mb():  # the kernel's own; ru_maxrss begins with that of the parent
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
start_s, frames = time.process_time(), 0
for chunk in iter_frames(path, long_side_px, chunk_bytes, reader):
    frames += len(chunk.frames)
    del chunk
print(frames, time.process_time() - start_s, peak_mb())
"""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """4K H.264 of a panned picture with grain: key frames every 24 frames, one of three times the length, and one
    with a single group."""
    folder = tmp_path_factory.mktemp("videos")
    made = {"short": (NUM_FRAMES, 24), "long": (NUM_FRAMES * 3, 24), "one_group": (NUM_FRAMES, 600)}
    return {name: _film(folder / f"{name}.mp4", *shape) for name, shape in made.items()}


def _film(path: Path, num_frames: int, keyint: int) -> Path:
    import av

    rng = np.random.default_rng(0)
    scene = rng.integers(0, 255, (300, 500, 3), dtype=np.uint8)
    scene = cv2.resize(scene, (WIDTH_PX + 800, HEIGHT_PX + 400), interpolation=cv2.INTER_CUBIC)
    grain = rng.integers(0, 12, (HEIGHT_PX + 64, WIDTH_PX + 64, 3), dtype=np.uint8)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=Fraction(30))
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        keys = f"keyint={keyint}:min-keyint={keyint}:scenecut=0:bframes=3"
        stream.options = {"preset": "superfast", "crf": "23", "x264-params": keys}
        for n in range(num_frames):
            x, y = round(400 + 390 * np.sin(n / 40)), round(200 + 190 * np.cos(n / 31))
            image = scene[y : y + HEIGHT_PX, x : x + WIDTH_PX]
            image = cv2.add(image, grain[n % 64 : n % 64 + HEIGHT_PX, n * 7 % 64 : n * 7 % 64 + WIDTH_PX])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode(None))
    return path


def _ffmpeg_cpu_s(path: Path) -> float:
    """CPU seconds of ``ffmpeg -threads 1`` for the same frames at the same size, as RGB."""
    import imageio_ffmpeg

    one = ["-threads", "1", "-filter_threads", "1"]
    scale = f"scale={LONG_SIDE_PX}:-2:flags=bicubic"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *one, "-i", str(path), "-vf", scale]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [*command, "-pix_fmt", "rgb24", "-f", "rawvideo", "-threads", "1", "-y", "/dev/null"], check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _read(path: Path, reader: str) -> tuple[int, float, float]:
    """Frames, CPU seconds and peak memory in MB of a process that reads a file."""
    command = [sys.executable, "-c", READ, str(path), reader, str(LONG_SIDE_PX), str(CHUNK_BYTES)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return int(said[0]), float(said[1]), float(said[2])


@pytest.mark.parametrize("name", ["short", "one_group"])
def test_decoding_and_scaling_per_cpu_second_against_ffmpeg(videos: dict[str, Path], name: str) -> None:
    path = videos[name]
    readers = ["pyav", "decord"] if name == "short" else ["pyav"]
    ratios: dict[str, list[float]] = {reader: [] for reader in readers}
    for _ in range(TURNS):
        theirs_s = _ffmpeg_cpu_s(path)
        for reader in readers:
            frames, ours_s, _ = _read(path, reader)
            assert frames == NUM_FRAMES
            ratios[reader].append(theirs_s / ours_s)
    print()
    for reader, found in ratios.items():
        each = ", ".join(f"{ratio:.2f}" for ratio in found)
        print(f"{name}, {reader}: {statistics.median(found):.2f} of ffmpeg's frames per CPU second ({each})")
    assert statistics.median(ratios["pyav"]) >= 0.9  # the default reader


def test_frames_decoded_for_each_needed(videos: dict[str, Path]) -> None:
    """PyAV decodes each once; decord's are counted from the key frame that a chunk starts from."""
    print()
    for name, path in videos.items():
        found = probe(path)
        reader = fitting_reader(found, LONG_SIDE_PX, CHUNK_BYTES)
        most = CHUNK_BYTES // (LONG_SIDE_PX * 720 * 3)
        by_decord = num_decoded(found.num_frames, found.keys, most) / found.num_frames
        decoded = by_decord if reader == "decord" else 1.0
        print(f"{name}: {decoded:.2f} by {reader} (by decord {by_decord:.2f})")
        assert decoded <= 1.1


@pytest.mark.parametrize("reader", ["pyav", "decord"])
def test_memory_is_bounded_and_does_not_grow_with_the_clip(videos: dict[str, Path], reader: str) -> None:
    peaks_mb = [_read(videos[name], reader)[2] for name in ("short", "long")]
    print(f"\n{reader}: peak {peaks_mb[0]:.0f} MB, of three times the length {peaks_mb[1]:.0f} MB", end="")
    print(f"; chunks of {CHUNK_BYTES / 2**20:.0f} MB")
    assert max(peaks_mb) <= 2 * CHUNK_BYTES / 2**20 + 300
    assert peaks_mb[1] <= 1.1 * peaks_mb[0]
