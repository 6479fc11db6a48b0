"""A shard folder of any number of samples in seconds: a few are encoded, the others are copies of them, renamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from data_prep.records import U8
from data_prep.shards import IndexRow, Sample, encode_sample, row_of, shard_name, write_index, write_tar
from data_prep.video.encode import encode_mp4
from tests.small_shards import make_sample

KINDS, PER_SHARD = 12, 1000


def make_many(folder: Path, num_samples: int, num_people: int, *, size: tuple[int, int] = (96, 160)) -> Path:
    """A finished folder; each sample shows two or three of ``num_people``, its clip is one of ten of its source."""
    folder.mkdir(parents=True)
    kinds = [encode_sample(resized(make_sample(k), size, k)) for k in range(KINDS)]
    written = [
        write_tar(
            folder / shard_name("train", at),
            _numbered(
                kinds, range(start, min(start + PER_SHARD, num_samples)), num_people, shard_name("train", at)
            ),
        )
        for at, start in enumerate(range(0, num_samples, PER_SHARD))
    ]
    rows = [row for shard in written for row in shard.rows]
    facts = {"num_clips": num_samples, "num_clips_kept": num_samples, "num_characters": num_people}
    write_index(folder, rows, "0" * 64, facts, [shard.file for shard in written])
    return folder


def resized(sample: Sample, size: tuple[int, int], seed: int) -> Sample:
    """At a real size, with noise for detail, so that pictures of it weigh what real ones do."""
    height, width = size
    dice = np.random.default_rng(seed)
    frames = len(sample.note.frames)
    video = np.stack([_blurred(dice, height, width) for _ in range(frames)])
    maps = np.stack(
        [cv2.resize(one, (width, height), interpolation=cv2.INTER_NEAREST) for one in sample.label_map]
    )
    faces = tuple(np.stack([_blurred(dice, 112, 112) for _ in slot]) for slot in sample.references)
    note = replace(sample.note, height_px=height, width_px=width)
    return replace(sample, note=note, mp4=encode_mp4(video, 8.0), label_map=maps, references=faces)


def _blurred(dice: np.random.Generator, height: int, width: int) -> U8:
    coarse = dice.integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def _numbered(
    kinds: list[dict[str, bytes]], numbers: range, num_people: int, shard: str
) -> Iterator[tuple[IndexRow, dict[str, bytes]]]:
    from data_prep.shards.sample import read_note

    for number in numbers:
        members = kinds[number % KINDS]
        note = read_note(members["json"])
        names = [f"c{(number * 7 + slot * 13) % num_people:08x}" for slot in range(len(note.cast))]
        cast = tuple(replace(m, character_id=name) for m, name in zip(note.cast, names, strict=True))
        references = tuple(
            tuple(replace(r, character_id=name) for r in slot)
            for slot, name in zip(note.references, names, strict=True)
        )
        own = {
            "key": f"clip-{number:06d}-0000",
            "clip_id": f"clip-{number:06d}",
            "source_id": f"film-{number // 10}",
        }
        made = replace(note, cast=cast, references=references, **own)
        text = json.loads(members["json"]) | own
        text |= {
            "cast": [vars(m) for m in cast],
            "references": [[vars(r) for r in slot] for slot in references],
        }
        yield row_of(shard, made, "train"), {**members, "json": json.dumps(text).encode()}
