"""A thousand damaged videos through ``prepare``: no hang, no crash of the run, every one in the ledger."""

from __future__ import annotations

import csv
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep import ledger
from data_prep.analysis.analyse import analyse
from data_prep.config import DecodeConfig, FaceConfig, PrepareConfig, RunConfig, WindowConfig
from data_prep.flow import prepare
from data_prep.records import AnalysedClip, Clip
from tests.unusual_videos import KINDS

NUM_MUTATED, SEED, TIMEOUT_S = 1000, 20261124, 60.0
PARENTS = ("h264", "h264_open_gop", "h264_edit_list", "mpeg4", "hevc_ten_bit", "vp9", "av1")
COLUMNS = ("clip_id", "url", "fps", "frame_width", "frame_height", "start_time", "end_time", "caption")


def mutated(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """One kind of damage: bits flipped, bytes overwritten, a span cut out, doubled or zeroed, the end cut off; half
    of it in the first or last 1,000 bytes, where the container's tables are."""
    way = str(rng.choice(["flip", "overwrite", "cut", "double", "zero", "truncate"]))
    ends = [
        int(rng.integers(0, min(1000, len(data)))),
        len(data) - int(rng.integers(1, min(1000, len(data)))),
    ]
    at = int(rng.choice(ends)) if rng.random() < 0.5 else int(rng.integers(0, len(data)))
    length = int(rng.integers(1, 64))
    if way == "flip":
        out = bytearray(data)
        for place in [at, *rng.integers(0, len(data), int(rng.integers(0, 8))).tolist()]:
            out[place] ^= 1 << int(rng.integers(0, 8))
        return way, bytes(out)
    middle = {
        "overwrite": rng.bytes(length),
        "cut": b"",
        "double": data[at : at + length] * 2,
        "zero": bytes(length),
        "truncate": b"",
    }[way]
    return way, data[:at] + middle + (b"" if way == "truncate" else data[at + length :])


def timed(clip: Clip, config: PrepareConfig) -> AnalysedClip:
    """``analyse``, its seconds written beside the clip for whoever asks."""
    start_s = time.perf_counter()
    try:
        return analyse(clip, config)
    finally:
        Path(clip.path).with_suffix(".seconds").write_text(str(time.perf_counter() - start_s))


def corpus(folder: Path, make_video: Any, count: int) -> Path:
    """The manifest of ``count`` mutated clips in a folder, and of their whole parents."""
    rng = np.random.default_rng(SEED)
    rows = []
    for parent in PARENTS:
        shutil.copy(make_video(num_frames=12, **KINDS[parent]), folder / f"whole-{parent}.mp4")
        rows.append(f"whole-{parent}.mp4")
    for number in range(count):
        way, data = mutated((folder / rows[number % len(PARENTS)]).read_bytes(), rng)
        rows.append(f"{way}-{number:04d}.mp4")
        (folder / rows[-1]).write_bytes(data)
    with (folder / "short.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows([name, name, 25, 192, 96, 0, 0.48, "numbers"] for name in rows)
    return folder / "short.csv"


def config_of(manifest: Path, output: Path, **decode: Any) -> PrepareConfig:
    return PrepareConfig(
        manifest=str(manifest),
        output=str(output),
        decode=DecodeConfig(timeout_s=TIMEOUT_S, **decode),
        faces=FaceConfig(detect_every=12),
        windows=WindowConfig(num_frames=5, stride=2, hop=10),
        run=RunConfig(num_workers=2, max_quarantined=1.0, max_attempts=2),
    )


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("reader", ["decord", "pyav"])
def test_a_thousand_mutated_files_are_all_in_the_ledger(reader, face_home, make_video, tmp_path):
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # this file is not importable in a worker
    manifest = corpus(tmp_path, make_video, NUM_MUTATED)
    prepare(config_of(manifest, tmp_path / "out", reader=reader), lambda *_: None, analyse_one=timed)
    fates = [d for d in ledger.read(tmp_path / "out" / ledger.LEDGER) if d.kind == "clip"]
    expected = {path.stem for path in tmp_path.glob("*.mp4")}
    assert {d.item for d in fates} == expected and len(expected) == NUM_MUTATED + len(PARENTS)
    outcomes = Counter(f"{d.fate}: {d.rule} {d.error_class}".strip() for d in fates)
    longest_s, slowest = max((float(p.read_text()), p.stem) for p in tmp_path.glob("*.seconds"))
    print(f"\n{reader}: {dict(outcomes.most_common())}; longest {longest_s:.2f} s ({slowest})")
    whole = [d for d in fates if d.item.startswith("whole-")]
    assert {d.rule for d in whole} == {"no_face"}  # read to the end, and nobody is in them
    assert not [d for d in fates if d.error_class == "TimeoutError"]
