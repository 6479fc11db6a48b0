"""Folders of videos with sidecars and trees of WebDataset tars, which webdataset itself wrote."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
import webdataset

from data_prep.config import IngestConfig
from data_prep.ingest.address import Address
from data_prep.ingest.archives import opened
from data_prep.ingest.folders import read_folder
from data_prep.ingest.storage import Storage
from data_prep.records import Clip, InputError
from tests.s3_lab import S3Lab

STORAGE = Storage(IngestConfig(backoff_s=0.001))
SIDECAR = {"url": "film", "start_time": 3, "end_time": 7, "captions": {"theme": "sea"}, "license": "CC-BY"}


def clips(place: str) -> dict[str, tuple[Clip, bytes]]:
    found = {}
    for row, file in read_folder(STORAGE, place):
        clip = row.clip_that_may_say_little(row.clip_id(), file.address, file.content_id)
        with opened(STORAGE, Address.parse(clip.path)) as parts:
            found[clip.id] = clip, b"".join(parts)
    return found


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    root = tmp_path / "videos"
    (root / "film 1").mkdir(parents=True)
    for name in ("plain.mp4", "film 1/told.webm", "film 1/captioned.mov", "film 1/._junk.mp4"):
        (root / name).write_bytes(name.encode())
    (root / "film 1" / "told.json").write_text(json.dumps(SIDECAR), encoding="utf-8-sig")
    (root / "film 1" / "told.txt").write_text("Анна машет\n", encoding="utf-8")
    (root / "film 1" / "captioned.txt").write_text("Anna waves")
    (root / "notes.pdf").touch()
    return root


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_videos_with_what_lies_beside_them(where: str, videos: Path, s3: S3Lab) -> None:
    found = clips(s3.put(videos, "videos") if where == "s3" else str(videos))
    assert {content for _, content in found.values()} == {
        b"plain.mp4",
        b"film 1/told.webm",
        b"film 1/captioned.mov",
    }
    told = next(clip for clip, content in found.values() if content == b"film 1/told.webm")
    assert (told.source_id, told.start_s, told.end_s, told.licence) == ("film", 3.0, 7.0, "CC-BY")
    assert (told.captions.brief, told.captions.theme) == ("Анна машет", "sea")
    plain, _ = found["plain"]
    assert (plain.source_id, plain.captions.brief, plain.fps) == ("plain.mp4", "", 0.0)
    assert bool(plain.content_id) == (where == "s3")


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_the_tars_of_webdatasets_own_writer(where: str, tmp_path: Path, s3: S3Lab) -> None:
    root = tmp_path / "tree"
    (root / "train").mkdir(parents=True)
    with webdataset.ShardWriter(str(root / "train" / "%05d.tar"), maxcount=3, verbose=0) as writer:
        for at in range(5):
            sample = {"__key__": f"{at:03d}/x", "mp4": f"film {at}".encode() * 20_000, "txt": f"caption {at}"}
            writer.write({**sample, "json": {**SIDECAR, "start_time": 8 * at, "end_time": 8 * at + 4}})
    found = clips(s3.put(root, "tree") if where == "s3" else str(root))
    assert [content for _, content in found.values()] == [f"film {at}".encode() * 20_000 for at in range(5)]
    assert [clip.captions.brief for clip, _ in found.values()] == [f"caption {at}" for at in range(5)]
    assert {clip.source_id for clip, _ in found.values()} == {"film"}
    assert all(clip_id.startswith(f"train_0000{at // 3}_{at:03d}_x") for at, clip_id in enumerate(found))
    assert len({clip.content_id for clip, _ in found.values()}) == (5 if where == "s3" else 1)


def tar_of(folder: Path, *entries: tuple[str, bytes]) -> str:
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "00.tar", "w") as packed:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    return str(folder)


def test_what_belongs_together_need_not_lie_together_and_may_lack_a_video(tmp_path: Path) -> None:
    place = tar_of(
        tmp_path / "t",
        ("a.mp4", b"A"),
        ("b.mp4", b"B"),
        ("a.txt", b"of a"),
        ("c.txt", b"of none"),
        ("b.cls", b"1"),
    )
    assert [(clip.captions.brief, content) for clip, content in clips(place).values()] == [
        ("of a", b"A"),
        ("", b"B"),
    ]


def test_mistakes(tmp_path: Path, videos: Path) -> None:
    two = tar_of(tmp_path / "two", ("a.mp4", b"A"), ("a.webm", b"A"))
    with pytest.raises(InputError, match=r"sample 'a' has two videos \(\.mp4, \.webm\); keep one"):
        clips(two)
    torn = tar_of(tmp_path / "torn", ("a.mp4", b"A"), ("a.json", b"{"))
    with pytest.raises(InputError, match=r"00\.tar, sample 'a': its \.json: not JSON"):
        clips(torn)
    text = tar_of(tmp_path / "text", ("a.mp4", b"A"), ("a.txt", b"\xff\xfe"))
    with pytest.raises(InputError, match=r"a\.txt.*not UTF-8"):
        clips(text)
    (videos / "plain.mov").touch()
    with pytest.raises(InputError, match=r"plain\.mov and plain\.mp4 share one name but for the ending"):
        clips(str(videos))
    (videos / "00.tar").touch()
    with pytest.raises(InputError, match=r"holds both videos \(.*\) and tars \(00\.tar\)"):
        clips(str(videos))
