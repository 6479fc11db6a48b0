"""A clip's file by its id: beside others, below them, and in UltraVideo's zips, here and in S3."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from data_prep.config import IngestConfig
from data_prep.ingest.address import Address
from data_prep.ingest.archives import Refusal, opened
from data_prep.ingest.clip_files import AmbiguousError, ClipFiles, Found
from data_prep.ingest.storage import Storage
from data_prep.records import InputError
from tests.s3_lab import S3Lab

STORAGE = Storage(IngestConfig(backoff_s=0.001))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As UltraVideo's download: parts as zips with a folder inside, one of them unpacked."""
    root = tmp_path / "clips_short"
    (root / "clips_short_1" / "clips_short_1").mkdir(parents=True)
    (root / "clips_short_1" / "clips_short_1" / "one.mp4").write_bytes(b"one")
    for part in (2, 3):
        with zipfile.ZipFile(root / f"clips_short_{part}.zip", "w") as packed:
            packed.writestr(f"clips_short_{part}/part{part}.mp4", f"part {part}")
            packed.writestr(f"clips_short_{part}/both.mp4", f"both {part}")
    with zipfile.ZipFile(root / "clips_short_4.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("clips_short_4/bomb.mp4", bytes(10**6))
        packed.writestr("clips_short_4/one.mp4", b"not this one")
    return root


def content(found: Found | None) -> bytes:
    assert found is not None
    with opened(STORAGE, Address.parse(found.address)) as parts:
        return b"".join(parts)


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_bare_names_and_paths(where: str, folder: Path, s3: S3Lab) -> None:
    files = ClipFiles(STORAGE, s3.put(folder, "files") if where == "s3" else str(folder))
    assert content(files.find("one.mp4")) == b"one"
    assert content(files.find("clips_short_1/clips_short_1/one.mp4")) == b"one"
    assert content(files.find("part2.mp4")) == b"part 2"
    assert content(files.find("clips_short_3/both.mp4")) == b"both 3"
    assert files.find("gone.mp4") is None
    assert files.find("short_3/both.mp4") is None
    bomb = files.find("bomb.mp4")
    assert bomb is not None and bomb.refusal is not None and bomb.refusal.rule == "zip_bomb"
    with pytest.raises(AmbiguousError, match=r"clips_short_2/both\.mp4.*clips_short_3/both\.mp4"):
        files.find("both.mp4")
    found = [files.find(name) for name in ("one.mp4", "part2.mp4", "part3.mp4")]
    known = {found.content_id for found in found if found}
    assert len(known) == (3 if where == "s3" else 1)


def test_what_may_not_be_used(folder: Path, s3: S3Lab) -> None:
    small = Storage(IngestConfig(max_clip_bytes=2))
    found = ClipFiles(small, s3.put(folder, "small")).find("one.mp4")
    assert found is not None and found.refusal == Refusal("too_large", "3 bytes", "2 bytes")


def test_no_folder(tmp_path: Path, s3: S3Lab) -> None:
    for place in (str(tmp_path / "none"), "s3://castbank-lab/none", "memory://none"):
        with pytest.raises(InputError, match=f"clips folder {place} does not exist"):
            ClipFiles(STORAGE, place)
