"""Frame exactness as a table: each decoder on each kind of file, against the numbers painted into the frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.config import DecodeConfig, UnusualConfig
from data_prep.decode import READERS, Chunk
from data_prep.video.canonical import canonical
from data_prep.video.probe import UnusableError, probe
from data_prep.video.reading import reading
from tests.unusual_videos import KINDS, shown

READ = DecodeConfig(unusual=UnusualConfig(variable_rate="read"))
Numbers = Callable[[Any], list[int]]


def cell(chunks: Iterable[Chunk], expected: list[int], read_numbers: Numbers) -> str:
    """Right frames of those expected, as a player would show them one after the other."""
    try:
        seen = read_numbers(np.concatenate([chunk.frames for chunk in chunks]))
    except UnusableError:
        return "refused"
    right = sum(number == wanted for number, wanted in zip(seen, expected, strict=False))
    return f"{right}/{len(expected)}" + ("" if len(seen) == len(expected) else f" of {len(seen)}")


def canonical_cell(path: Path, kind: str, read_numbers: Numbers) -> str:
    """The canonical file, by decord: at each of its times the frame that the original shows in the middle of it."""
    numbers, times_s = shown(kind)
    with canonical(probe(path), 192) as made:
        found = probe(made)
        middles_s = (np.arange(found.num_frames) + 0.5) / found.fps
        expected = [numbers[sum(time_s <= middle_s for time_s in times_s) - 1] for middle_s in middles_s]
        return cell(READERS["decord"](made, 192, 1 << 29), expected, read_numbers)


def test_what_preparation_reads_is_exact_for_every_kind(make_video, read_numbers):
    print(f"\n{'file':20} {'decord':>12} {'pyav':>8} {'prepare':>8} {'canonical':>10}  read by")
    wrong = []
    for kind, made in KINDS.items():
        path, numbers = make_video(**made), shown(kind)[0]
        raw = [cell(reader(path, 1280, 1 << 20), numbers, read_numbers) for reader in READERS.values()]
        with reading(path, READ) as source:
            ours = cell(source.chunks(), numbers, read_numbers)
        usual = canonical_cell(path, kind, read_numbers)
        print(f"{kind:20} {raw[0]:>12} {raw[1]:>8} {ours:>8} {usual:>10}  {source.decoder}")
        if ours != f"{len(numbers)}/{len(numbers)}" or len(set(usual.split("/"))) > 1:
            wrong.append(kind)
    assert not wrong
