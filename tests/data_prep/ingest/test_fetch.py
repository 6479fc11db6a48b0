"""A clip's file near at hand while it is worked on, and gone afterwards."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep.config import IngestConfig
from data_prep.ingest.archives import DamagedError
from data_prep.ingest.clip_files import ClipFiles, Found
from data_prep.ingest.fetch import local_clip
from data_prep.ingest.storage import Storage
from data_prep.ingest.stores import StorageError
from data_prep.records import Clip
from tests.s3_lab import S3Lab

LIMITS = IngestConfig(backoff_s=0.001, max_attempts=3)
CONTENT = b"film" * 50_000


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "plain.MP4").write_bytes(CONTENT)
    with zipfile.ZipFile(folder / "part.zip", "w") as packed:
        packed.writestr(f"in/{'x' * 240}.mp4", CONTENT)
    return folder


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    (tmp_path / "desk").mkdir()
    return tmp_path / "desk"


def clip_at(found: Found | None) -> Clip:
    assert found is not None
    return Clip("some-clip", "film", found.address, 0, 4, 24, 640, 360, content_id=found.content_id)


@pytest.mark.parametrize("name", ["plain.MP4", "x" * 240 + ".mp4"])
@pytest.mark.parametrize("where", ["disk", "s3"])
def test_the_bytes_are_there_and_then_gone(
    name: str, where: str, corpus: Path, desk: Path, s3: S3Lab
) -> None:
    place = s3.put(corpus, "fetch") if where == "s3" else str(corpus)
    clip = clip_at(ClipFiles(Storage(LIMITS), place).find(name))
    s3.faults.every, s3.faults.kind = 3, "503 Slow Down"
    with local_clip(clip, LIMITS, desk) as near:
        path = Path(near.path)
        assert path.read_bytes() == CONTENT
        assert replace(near, path=clip.path) == clip
        fetched = where == "s3" or name.startswith("x")
        assert (path.name, path.parent.parent) == ("some-clip.mp4", desk) if fetched else near == clip
    assert list(desk.iterdir()) == []
    assert (corpus / "plain.MP4").is_file()


def test_one_that_is_gone_replaced_or_damaged(corpus: Path, desk: Path, s3: S3Lab) -> None:
    place = s3.put(corpus, "moving")
    clip = clip_at(ClipFiles(Storage(LIMITS), place).find("plain.MP4"))
    (corpus / "plain.MP4").write_bytes(b"other")
    s3.put(corpus, "moving")
    with (
        pytest.raises(StorageError, match="replaced since the clips were listed; run the same command again"),
        local_clip(clip, LIMITS, desk),
    ):
        pass
    s3.remove(f"{place}/plain.MP4")
    with pytest.raises(FileNotFoundError), local_clip(clip, LIMITS, desk):
        pass
    packed = clip_at(ClipFiles(Storage(LIMITS), str(corpus)).find("x" * 240 + ".mp4"))
    whole = (corpus / "part.zip").read_bytes()
    (corpus / "part.zip").write_bytes(whole.replace(b"filmfilm", b"filmFILM", 1))
    with pytest.raises(DamagedError, match="Bad CRC-32"), local_clip(packed, LIMITS, desk):
        pass
    assert list(desk.iterdir()) == []
