"""A few small samples with an answer that is known: coloured discs drift through frames, each with its label."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from data_prep.records import U8, Captions
from data_prep.shards import (
    CastMember,
    IndexRow,
    ReferenceNote,
    Sample,
    SampleNote,
    encode_sample,
    write_index,
    write_shard,
)
from data_prep.video.encode import encode_mp4

NUM_FRAMES, HEIGHT, WIDTH = 9, 32, 48
COLOURS = {"c01": (220, 60, 60), "c02": (60, 200, 60), "c03": (70, 90, 230)}
CASTS = (("c01", "c02"), ("c02", "c01"), ("c03",), ("c01",), ("c02", "c03"), ("c01", "c02", "c03"))
NUM_REFERENCES = 3


def make_shards(folder: Path, num_samples: int = 12) -> Path:
    """A finished shard folder; sample k shows CASTS[k % 6]."""
    folder.mkdir(parents=True)
    samples = [make_sample(k) for k in range(num_samples)]
    half = num_samples // 2
    rows = write_shard(folder / "shard-000000.tar", samples[:half])
    rows += write_shard(folder / "shard-000001.tar", samples[half:])
    write_index(folder, rows, "0" * 64, {"num_clips": num_samples})
    return folder


def make_foreign_shards(
    folder: Path, change: Callable[[dict[str, bytes]], dict[str, bytes]], num_samples: int, first: int
) -> Path:
    """A folder as another program might have written it: whole, with checksums that are right, the members of its
    samples from the ``first`` on changed."""
    folder.mkdir(parents=True)
    written, rows = io.BytesIO(), []
    with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for k in range(num_samples):
            sample = make_sample(k)
            note, offset, members = sample.note, tar.offset, encode_sample(sample)
            for name, data in (change(members) if k >= first else members).items():
                info = tarfile.TarInfo(f"{note.key}.{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            span = written.getvalue()[offset : tar.offset]
            digest = hashlib.sha256(span).hexdigest()
            who = (note.clip_id, note.source_id, tuple(member.character_id for member in note.cast))
            rows.append(IndexRow("shard-000000.tar", note.key, offset, len(span), digest, *who))
    (folder / "shard-000000.tar").write_bytes(written.getvalue())
    write_index(folder, rows, "0" * 64, {"num_clips": num_samples})
    return folder


def make_sample(number: int) -> Sample:
    cast = CASTS[number % len(CASTS)]
    video, label_map = draw(number, cast)
    members = tuple(CastMember(k, name, f"<person-{k}> is {name}.") for k, name in enumerate(cast, 1))
    note = SampleNote(
        key=f"sample-{number:03d}",
        clip_id=f"clip-{number}",
        source_id=f"source-{number}",
        shot=0,
        window=0,
        start_s=0.0,
        end_s=1.0,
        frames=tuple(range(NUM_FRAMES)),
        frame_times_s=tuple(k / 8 for k in range(NUM_FRAMES)),
        fps=8.0,
        width_px=WIDTH,
        height_px=HEIGHT,
        cast=members,
        references=tuple(tuple(origin(name, r) for r in range(NUM_REFERENCES)) for name in cast),
        boxes_px=tuple((None,) * NUM_FRAMES for _ in cast),
        captions=Captions(brief=f"discs {number}"),
        guard_gap_s=1.0,
        licence="made here",
        consent="granted",
    )
    references = tuple(np.stack([face(name, r) for r in range(NUM_REFERENCES)]) for name in cast)
    return Sample(note, encode_mp4(video, 8.0), label_map, references, f"discs {number}")


def draw(number: int, cast: tuple[str, ...]) -> tuple[U8, U8]:
    """u8[T,H,W,3] and u8[T,H,W]."""
    video = np.full((NUM_FRAMES, HEIGHT, WIDTH, 3), 30 + 5 * (number % 8), np.uint8)
    label_map = np.zeros((NUM_FRAMES, HEIGHT, WIDTH), np.uint8)
    for slot, name in enumerate(cast, 1):
        for t in range(NUM_FRAMES):
            centre = (8 + 15 * (slot - 1) + t // 3, 16 + (number + t) % 3)
            cv2.circle(video[t], centre, 6, COLOURS[name], -1)
            cv2.circle(label_map[t], centre, 6, slot, -1)
    return video, label_map


def face(name: str, variant: int) -> U8:
    """u8[112,112,3]: not a face, but always the same for the same name and variant."""
    image = np.full((112, 112, 3), COLOURS[name], np.uint8)
    cv2.circle(image, (40, 45), 6 + variant, (20, 20, 20), -1)
    cv2.circle(image, (72, 45), 6 + variant, (20, 20, 20), -1)
    cv2.ellipse(image, (56, 80), (18, 4 + 2 * variant), 0, 0, 360, (150, 40, 40), -1)
    return image


def origin(name: str, variant: int) -> ReferenceNote:
    return ReferenceNote(
        character_id=name,
        clip_id=f"portrait-{name}",
        source_id=f"album-{name}",
        track_id=f"portrait-{name}-0",
        frame=variant,
        time_s=variant / 8,
        origin="other_clip",
        time_gap_s=None,
        similarity=0.7,
        yaw_deg=10.0 * variant,
        yaw_difference_deg=0.0,
        sharpness=50.0,
    )
