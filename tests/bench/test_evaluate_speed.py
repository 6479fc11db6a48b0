"""Evaluation against the recognisers' own speed on the same frames, and its memory over many videos.

Run by ``make bench``. Own speed: detection, landmarks with alignment, and both recognisers, one after the other on
frames that lie in memory; evaluation decodes and judges as well. Turns alternate and the best of each counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_prep.decode import iter_frames
from data_prep.faces import analyser_for, embed_crops
from pipeline.judging.evaluate import judge
from pipeline.judging.galleries import gallery
from pipeline.judging.sight import see
from tests.judged_people import CAST, PACKS, reference_crops

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

TURNS, EVERY, FEW, MANY = 3, 3, 10, 60

MEASURE = """
import json, resource, sys
from jobs.__main__ import main
code = main(["evaluate", *sys.argv[2:], "--references", sys.argv[1], "--every", "54", "--output", "judged"])
print("PEAK", json.dumps([code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def test_evaluation_is_as_fast_as_its_recognisers(footage: Path, face_home: Path) -> None:
    clip = footage / "clips" / "cafe-01.mp4"
    analyser = analyser_for("embedded", (640, 384), face_home)
    galleries = [gallery(pack, reference_crops(footage, analyser)) for pack in PACKS]
    frames = np.concatenate([chunk.frames[::EVERY] for chunk in iter_frames(clip)])
    own_s, whole_s = [], []
    for _ in range(TURNS):
        start_s = time.perf_counter()
        for frame in frames:
            crops = [analyser.measure(frame, face).crop for face in analyser.detect(frame)]
            for pack in PACKS:
                embed_crops(pack, np.asarray(crops, np.uint8).reshape(-1, 112, 112, 3))
        own_s.append(time.perf_counter() - start_s)
        start_s = time.perf_counter()
        seen = []
        for chunk in iter_frames(clip):
            seen += see(chunk.frames[-chunk.start % EVERY :: EVERY], analyser, PACKS)
        judge(seen, galleries, CAST, step=EVERY)
        whole_s.append(time.perf_counter() - start_s)
    ratio = min(own_s) / min(whole_s)
    per_frame = 1000 * min(whole_s) / len(frames)
    print(
        f"\nevaluation at {ratio:.2f} of the recognisers' own speed; {per_frame:.0f} ms a frame of two people"
    )
    assert ratio >= 0.9


def test_memory_does_not_grow_with_the_number_of_videos(
    footage: Path, face_home: Path, tmp_path: Path
) -> None:
    analyser = analyser_for("embedded", (640, 384), face_home)
    from PIL import Image

    for name, crops in reference_crops(footage, analyser).items():
        (tmp_path / "faces" / name).mkdir(parents=True)
        Image.fromarray(crops[0]).save(tmp_path / "faces" / name / "one.png")
    content = (footage / "clips" / "cafe-01.mp4").read_bytes()
    peaks = []
    for count in (FEW, MANY):
        folder = tmp_path / str(count)
        folder.mkdir()
        videos = [folder / f"{k:03d}.mp4" for k in range(count)]
        for video in videos:
            video.write_bytes(content)
        command = [sys.executable, "-c", MEASURE, str(tmp_path / "faces"), *map(str, videos)]
        environment = {**os.environ, "CASTBANK_HOME": str(face_home), "PYTHONPATH": str(Path.cwd())}
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=True
        )
        code, peak = json.loads(done.stdout.split("PEAK ")[1])
        assert code == 0
        peaks.append(peak)
    grown = (peaks[1] - peaks[0]) / (MANY - FEW)
    print(
        f"\n{FEW} videos: {peaks[0]:.0f} MB at most, {MANY}: {peaks[1]:.0f} MB, {grown * 1000:.0f} kB a video"
    )
    assert peaks[1] <= 1.1 * peaks[0]
