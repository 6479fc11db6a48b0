"""How fast shards are written and read, against what nobody can do without: a copy to the disk, plain webdataset.

Run by ``make bench`` on an idle machine; figures are printed. Both sides of each comparison are taken in turn.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_prep.shards import IndexRow, ShardSet, encode_sample, row_of, write_index, write_tar
from tests.small_shards import make_sample

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

Encoded = list[tuple[IndexRow, dict[str, bytes]]]
TURNS = 7
LARGE, SMALL = 2_500_000, 60_000  # bytes of a video: 5 s of 480p at 4 Mbit/s, 17 frames of the demo's 160x96


def encoded(num_samples: int, mp4_bytes: int) -> Encoded:
    """Samples of that weight; what should be a video is noise, and is not decoded here."""
    generator = np.random.default_rng(0)
    samples = [replace(make_sample(k), mp4=generator.bytes(mp4_bytes)) for k in range(num_samples)]
    return [(row_of("shard-000000.tar", s.note, "train"), encode_sample(s)) for s in samples]


def seconds(work: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s


def copied(source: Path, target: Path) -> None:
    """``cp``, then the bytes are on the disk."""
    subprocess.run(["cp", str(source), str(target)], check=True)
    handle = os.open(target, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def test_packing_keeps_up_with_copying(tmp_path: Path) -> None:
    """From members in memory to a tar on disk with its index and two hashes, against cp of that tar and fsync."""
    samples = encoded(48, LARGE)
    made, copy = tmp_path / "shard-000000.tar", tmp_path / "copy.tar"
    size = write_tar(made, samples).file.num_bytes
    ours, plain = [], []
    for _ in range(TURNS):
        ours.append(seconds(lambda: write_tar(made, samples)))
        plain.append(seconds(lambda: copied(made, copy)))
        copy.unlink()
    ratio = statistics.median(p / o for p, o in zip(plain, ours, strict=True))
    rate = size / 1e6 / statistics.median(ours)
    print(f"\npacking {rate:.0f} MB/s, cp and fsync {size / 1e6 / statistics.median(plain):.0f}: {ratio:.2f}")
    assert ratio >= 0.9


@pytest.mark.parametrize(("mp4_bytes", "num_samples"), [(LARGE, 96), (SMALL, 1500)], ids=["large", "small"])
def test_strict_reading_keeps_up_with_plain_webdataset(
    mp4_bytes: int, num_samples: int, tmp_path: Path
) -> None:
    """Every sample's members as bytes, ours with every sha256 and name checked; in one process, from memory."""
    import webdataset

    kinds = encoded(12, mp4_bytes)
    numbered = [(replace(kinds[k % 12][0], key=f"s-{k:06d}"), kinds[k % 12][1]) for k in range(num_samples)]
    folder = tmp_path / "shards"
    folder.mkdir()
    written = []
    for at, start in enumerate(range(0, num_samples, num_samples // 4)):
        name = f"shard-{at:06d}.tar"
        part = [
            (replace(row, shard=name), {**m, "json": m["json"].replace(b"sample-", b"s-")})
            for row, m in numbered[start : start + num_samples // 4]
        ]
        written.append(write_tar(folder / name, part))
    rows = [row for shard in written for row in shard.rows]
    write_index(folder, rows, "0" * 64, {}, [shard.file for shard in written])
    opened, urls = ShardSet.open(folder), [str(path) for path in sorted(folder.glob("*.tar"))]

    def ours() -> None:
        assert sum(len(members["mp4"]) for _, members in opened.members()) == num_samples * mp4_bytes

    def plain() -> None:
        data = webdataset.WebDataset(urls, shardshuffle=False)
        assert sum(len(sample["mp4"]) for sample in data) == num_samples * mp4_bytes

    plain()
    pairs = [(seconds(ours), seconds(plain)) for _ in range(TURNS)]
    mine, theirs = (num_samples / statistics.median(each) for each in zip(*pairs, strict=True))
    ratio = statistics.median(p / o for o, p in pairs)
    print(f"\nstrict {mine:.0f} samples/s, plain webdataset {theirs:.0f}: {ratio:.2f}")
    shutil.rmtree(folder)
    assert ratio >= 0.95
