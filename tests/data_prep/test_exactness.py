"""Frame exactness as a table: each decoder on each kind of file, against the numbers painted into the frames."""

import numpy as np

from data_prep.config import DecodeConfig, UnusualConfig
from data_prep.decode import READERS
from data_prep.probe import UnusableError
from data_prep.reading import reading
from tests.unusual_videos import KINDS, shown

READ = DecodeConfig(unusual=UnusualConfig(variable_rate="read"))


def matches(numbers: list[int], kind: str) -> int:
    return sum(seen == right for seen, right in zip(numbers, shown(kind)[0], strict=False))


def test_what_preparation_reads_is_exact_for_every_kind(make_video, read_numbers):
    print(f"\n{'file':20} {'decord':>8} {'pyav':>8} {'prepare':>8}  read by")
    wrong = []
    for kind, made in KINDS.items():
        path, total = make_video(**made), len(shown(kind)[0])
        cells = []
        for reader in READERS.values():
            try:
                frames = np.concatenate([chunk.frames for chunk in reader(path, 1280, 1 << 20)])
                cells.append(f"{matches(read_numbers(frames), kind)}/{total}")
            except UnusableError:
                cells.append("refused")
        with reading(path, READ) as source:
            numbers = read_numbers(np.concatenate([chunk.frames for chunk in source.chunks()]))
        cells.append(f"{matches(numbers, kind)}/{total}")
        print(f"{kind:20} {cells[0]:>8} {cells[1]:>8} {cells[2]:>8}  {source.decoder}")
        if numbers != shown(kind)[0]:
            wrong.append(kind)
    assert not wrong
