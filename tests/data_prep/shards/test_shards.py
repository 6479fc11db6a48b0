"""The shard format: what others read, what is refused, what a crash leaves behind."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from data_prep.records import Captions, InputError
from data_prep.shards import (
    CastMember,
    ReferenceNote,
    Sample,
    SampleNote,
    ShardError,
    ShardSet,
    check_references,
    decode_sample,
    encode_sample,
    row_of,
    write_index,
    write_shard,
    write_tar,
)
from data_prep.shards.sample import label_png

FRAMES, HEIGHT, WIDTH = 5, 8, 16


def reference(slot: int, **changes: Any) -> ReferenceNote:
    note = ReferenceNote(
        character_id=f"c{slot}",
        clip_id="other",
        source_id="source",
        track_id="other-0-0",
        frame=3,
        time_s=0.125,
        origin="other_clip",
        time_gap_s=12.0,
        similarity=0.7,
        yaw_deg=5.0,
        yaw_difference_deg=3.0,
        sharpness=100.0,
        landmarks_px=((38.5, 51.25), (73.5, 51.5), (56.0, 71.75), (41.5, 92.25), (70.75, 92.0)),
    )
    return replace(note, **changes)


def sample(key: str = "clip-0000", counts: tuple[int, ...] = (2, 3)) -> Sample:
    rng = np.random.default_rng(len(key) + sum(counts))
    slots = range(1, len(counts) + 1)
    note = SampleNote(
        key=key,
        clip_id="clip",
        source_id="source",
        shot=0,
        window=0,
        start_s=10.0,
        end_s=11.0,
        frames=(0, 2, 4, 6, 8),
        frame_times_s=(0.0, 0.1, 0.2, 0.3, 0.4),
        fps=12.0,
        width_px=WIDTH,
        height_px=HEIGHT,
        cast=tuple(CastMember(s, f"c{s}", f"<person-{s}> is here.") for s in slots),
        references=tuple(tuple(reference(s) for _ in range(n)) for s, n in zip(slots, counts, strict=True)),
        boxes_px=tuple((None, *((1.0, 2.0, 3.0, 4.0),) * (FRAMES - 1)) for _ in slots),
        captions=Captions(brief="Zwei Menschen, 二人"),
        guard_gap_s=1.0,
    )
    label_map = rng.integers(0, len(counts) + 1, (FRAMES, HEIGHT, WIDTH), np.uint8)
    pictures = tuple(rng.integers(0, 256, (n, 112, 112, 3), np.uint8) for n in counts)
    return Sample(note, b"\0\0\0\x18ftypmp42" + rng.bytes(99), label_map, pictures, "<person-1> is here.")


def png(image: Any) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def folder_with(path: Path, keys: tuple[str, ...] = ("a-0", "a-1", "b-0")) -> Path:
    path.mkdir()
    rows = write_shard(path / "shard-000000.tar", [sample(k) for k in keys])
    write_index(path, rows, "inputs", {"num_clips": 1})
    return path


def test_a_sample_comes_back_as_it_went_in() -> None:
    before = sample()
    after = decode_sample(encode_sample(before))
    assert after.note == before.note
    assert (after.mp4, after.caption) == (before.mp4, before.caption)
    np.testing.assert_array_equal(after.label_map, before.label_map)
    for a, b in zip(after.references, before.references, strict=True):
        np.testing.assert_array_equal(a, b)


def as_first_version(text: str) -> str:
    """A note or a manifest as it was written before references had landmarks."""
    data = json.loads(text) | {"schema": 1}
    for reference in (r for slot in data.get("references", ()) for r in slot):
        del reference["landmarks_px"]
    return json.dumps(data)


def test_a_folder_of_the_first_version_is_read(tmp_path: Path) -> None:
    folder, tar = tmp_path / "shards", tmp_path / "shards" / "shard-000000.tar"
    folder.mkdir()
    old = replace(sample("a-0"), note=replace(sample("a-0").note, schema=1))
    members = encode_sample(old)
    members["json"] = as_first_version(members["json"].decode()).encode()
    written = write_tar(tar, [(row_of(tar.name, old.note, "train"), members)])
    write_index(folder, written.rows, "inputs", {})
    (folder / "manifest.json").write_text(as_first_version((folder / "manifest.json").read_text()))
    note = ShardSet.open(folder).read(0).note
    assert note.schema == 1
    assert {r.landmarks_px for slot in note.references for r in slot} == {None}
    assert replace(note, references=old.note.references) == old.note


def test_landmarks_are_numbers_that_anybody_reads() -> None:
    note = json.loads(encode_sample(sample())["json"])
    assert (note["schema"], note["references"][0][0]["landmarks_px"][2]) == (2, [56.0, 71.75])


def test_plain_webdataset_reads_every_member(tmp_path: Path) -> None:
    import webdataset

    folder = folder_with(tmp_path / "shards")
    urls = [str(p) for p in sorted(folder.glob("*.tar"))]
    read = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [s["__key__"] for s in read] == ["a-0", "a-1", "b-0"]
    want = sample("a-0")
    assert json.loads(read[0]["json"])["cast"][1]["character_id"] == "c2"
    assert read[0]["mp4"] == want.mp4
    stacked = np.asarray(Image.open(io.BytesIO(read[0]["labelmap.png"])))
    np.testing.assert_array_equal(stacked.reshape(FRAMES, HEIGHT, WIDTH), want.label_map)
    faces = np.asarray(Image.open(io.BytesIO(read[0]["references.png"])))
    np.testing.assert_array_equal(faces[112:224, 224:336], want.references[1][2])


def test_datasets_reads_every_member(tmp_path: Path) -> None:
    import datasets

    folder = folder_with(tmp_path / "shards")
    data = datasets.load_dataset(
        "webdataset", data_files=str(folder / "*.tar"), split="train", cache_dir=str(tmp_path / "cache")
    ).cast_column("mp4", datasets.Video(decode=False))
    assert data[2]["__key__"] == "b-0"
    assert data[2]["mp4"]["bytes"] == sample("b-0").mp4
    assert data[2]["json"]["captions"]["brief"] == "Zwei Menschen, 二人"
    np.testing.assert_array_equal(
        np.asarray(data[2]["labelmap.png"]).reshape(FRAMES, HEIGHT, WIDTH), sample("b-0").label_map
    )


def test_our_reader_by_index(tmp_path: Path) -> None:
    shards = ShardSet.open(folder_with(tmp_path / "shards"))
    assert len(shards) == 3
    assert [shards.read(i).note.key for i in (2, 0, 1)] == ["b-0", "a-0", "a-1"]
    assert shards.rows[0].cast == ("c1", "c2")
    assert shards.manifest.shards[0].num_samples == 3


def test_same_samples_same_bytes(tmp_path: Path) -> None:
    first, second = folder_with(tmp_path / "one"), folder_with(tmp_path / "two")
    for name in ("shard-000000.tar", "index.jsonl", "manifest.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip_id": "clip", "origin": "same_shot", "frame": 4, "time_gap_s": 2.0}, "inside the window"),
        ({"clip_id": "clip", "origin": "same_shot", "frame": 20, "time_gap_s": 0.5}, "guard gap is 1.0 s"),
        ({"clip_id": "clip", "origin": "other_clip", "frame": 20}, "says origin other_clip"),
        ({"origin": "other_shot"}, "says origin other_shot"),
        ({"time_gap_s": 0.0}, "inside the sample's span of the source"),
        ({"character_id": "c9"}, "shows c9"),
    ],
)
def test_a_reference_from_the_frames_trained_on_is_refused(change: dict[str, Any], message: str) -> None:
    good = sample()
    bad = replace(good.note, references=((reference(1, **change), reference(1)), good.note.references[1]))
    with pytest.raises(ShardError, match=message):
        check_references(bad)
    with pytest.raises(ShardError, match=message):
        encode_sample(replace(good, note=bad))
    members = encode_sample(good)
    note = json.loads(members["json"])
    note["references"][0][0].update(change)
    with pytest.raises(ShardError, match=message):
        decode_sample({**members, "json": json.dumps(note).encode()})


def test_a_slot_without_reference_is_refused() -> None:
    good = sample()
    note = replace(good.note, references=((), good.note.references[1]))
    with pytest.raises(ShardError, match=r"slot 1 \(c1\): no reference"):
        check_references(note)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda s: replace(s, note=replace(s.note, key="a.b")), "dots split a key"),
        (lambda s: replace(s, label_map=s.label_map[1:]), "label map is uint8"),
        (lambda s: replace(s, label_map=s.label_map + np.uint8(7)), "label map names slot"),
        (lambda s: replace(s, references=s.references[:1]), "differ in number"),
    ],
)
def test_a_malformed_sample_is_refused(broken: Any, message: str) -> None:
    with pytest.raises(ShardError, match=message):
        encode_sample(broken(sample()))


@pytest.mark.parametrize(
    ("member", "data", "message"),
    [
        ("json", b'{"key":', "json cannot be read"),
        ("json", b"{}", "schema None, this castbank reads 1"),
        ("labelmap.png", b"no picture", "a picture of 10 bytes is not a PNG"),
        ("labelmap.png", png(np.zeros((HEIGHT, WIDTH), np.uint8)), r"labelmap.png has the shape"),
        ("labelmap.png", png(np.zeros((FRAMES * HEIGHT, WIDTH, 3), np.uint8)), "in grey"),
        ("labelmap.png", png(np.zeros((FRAMES * HEIGHT, WIDTH), np.uint16)), "has uint16 pixels"),
        ("labelmap.png", png(np.full((FRAMES * HEIGHT, WIDTH), 7, np.uint8)), "label map names slot 7 of 2"),
        (
            "references.png",
            png(np.zeros((112, 336, 3), np.uint8)),
            "references.png is 336x112 pixels; a cast of 2",
        ),
        ("references.png", png(np.zeros((224, 100, 3), np.uint8)), "references.png is 100x224 pixels"),
        ("references.png", png(np.zeros((224, 112, 3), np.uint8)), "differ in number"),
    ],
)
def test_what_another_writer_got_wrong_is_named(member: str, data: bytes, message: str) -> None:
    with pytest.raises(ShardError, match=message):
        decode_sample({**encode_sample(sample()), member: data})


@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (300, 64)])
def test_other_readers_see_the_label_map_that_was_written(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    data = label_png(image)
    with Image.open(io.BytesIO(data)) as opened:
        opened.verify()
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), image)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), image)


def test_a_failure_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    def samples() -> Iterator[Sample]:
        yield sample("a-0")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        write_shard(tmp_path / "shard-000000.tar", samples())
    assert list(tmp_path.iterdir()) == []


def test_unfinished_damaged_and_foreign_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        ShardSet.open(tmp_path / "absent")
    folder = folder_with(tmp_path / "shards")
    tar = folder / "shard-000000.tar"
    data = bytearray(tar.read_bytes())
    data[ShardSet.open(folder).rows[1].offset + 600] ^= 1
    tar.write_bytes(data)
    with pytest.raises(ShardError, match=r"sample a-1: bytes .* are damaged"):
        ShardSet.open(folder).read(1)
    assert ShardSet.open(folder).read(0).note.key == "a-0"
    (folder / "index.jsonl").write_text("")
    with pytest.raises(ShardError, match="not the one the manifest was written for"):
        ShardSet.open(folder)
    (folder / "manifest.json").write_text("[]")
    with pytest.raises(ShardError, match="not a castbank manifest"):
        ShardSet.open(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match="unfinished"):
        ShardSet.open(folder)


def test_a_key_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="a key comes twice"):
        write_shard(tmp_path / "shard-000000.tar", [sample("a-0"), sample("a-0")])
    assert list(tmp_path.iterdir()) == []
