"""Files on a disk, in memory and in S3 read alike; S3 is a real server that fails as it is told."""

from __future__ import annotations

import json
import random
import zipfile
from pathlib import Path

import fsspec
import pytest

from data_prep.config import IngestConfig
from data_prep.ingest import storage as module
from data_prep.ingest.storage import Storage
from data_prep.ingest.stores import StorageError
from data_prep.records import InputError
from tests.s3_lab import Fault, S3Lab
from tests.tracking_lab import client

LIMITS = IngestConfig(backoff_s=0.001)
STORAGE = Storage(LIMITS)
NAMES = ["a.mp4", "sub dir/名前 ü.mp4", "100%.txt", "what#is?this.mp4", "x" * 200 + ".mp4"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = random.Random(7)
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(rng.randbytes(300_000))
    return tmp_path


def in_memory(folder: Path) -> str:
    memory = fsspec.filesystem("memory")
    for name in NAMES:
        memory.pipe_file(f"/corpus/{name}", (folder / name).read_bytes())
    return "memory://corpus"


@pytest.mark.parametrize("store", ["path", "memory", "s3"])
def test_the_same_files_with_the_same_bytes(
    store: str, folder: Path, s3: S3Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RANGE_BYTES", 70_001)
    place = {"path": str, "memory": in_memory, "s3": lambda p: s3.put(p, "same")}[store](folder)
    found = STORAGE.files(place)
    assert sorted(found) == sorted(NAMES)
    for name in NAMES:
        content = (folder / name).read_bytes()
        where = f"{place}/{name}"
        with STORAGE.open(where) as stream:
            assert stream.read() == content
            stream.seek(-10, 2)
            assert stream.read(3) == content[-10:-7]
        assert b"".join(STORAGE.ranges(where, 12, 250_000)) == content[12:250_000]
        assert STORAGE.stat(where).num_bytes == len(content)
        listed = found[name]
        assert (listed is None) == (store == "path")
        assert listed is None or listed.num_bytes == len(content)
        assert listed is None or listed.content_id == STORAGE.stat(where).content_id
        assert bool(STORAGE.stat(where).content_id) == (store == "s3")
    assert STORAGE.files(f"{place}/none") == {}


@pytest.mark.parametrize("kind", ["503 Slow Down", "500 Internal Server Error", "cut off"])
def test_s3_that_fails_every_third_call_gives_the_same_bytes(
    kind: Fault, folder: Path, s3: S3Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RANGE_BYTES", 70_001)
    place = s3.put(folder, f"faults-{kind[:3]}")
    calm = STORAGE.files(place)
    s3.faults.every, s3.faults.kind = 3, kind
    assert STORAGE.files(place) == calm
    for name in NAMES:
        assert b"".join(STORAGE.ranges(f"{place}/{name}", 0, 300_000)) == (folder / name).read_bytes()
    assert s3.faults.num_failed >= 10


def test_googles_store_lists_and_is_asked_again(s3: S3Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing emulates it here; moto answers its listings, whose requests are S3's, and no more."""
    boto = client(s3.endpoint)
    boto.create_bucket(Bucket="gslab")
    boto.put_object(Bucket="gslab", Key="x/a b.mp4", Body=b"film" * 1000)
    account = {"gcs_base_url": s3.endpoint, "disable_oauth": True}
    keys = {"client_email": "", "private_key": "", "private_key_id": ""}
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps({**account, **keys}))
    s3.faults.every = 3
    storage = Storage(IngestConfig(backoff_s=0.001, timeout_s=59))  # a file system of its own
    assert list(storage.files("gs://gslab/x")) == ["a b.mp4"]
    found = storage.files("gs://gslab/x")["a b.mp4"]
    assert found is not None and found.num_bytes == 4000 and found.content_id
    assert s3.faults.num_failed > 0


def test_a_store_that_never_answers_is_an_error_that_says_what_to_do(folder: Path, s3: S3Lab) -> None:
    place = s3.put(folder, "down")
    s3.faults.every, s3.faults.kind = 1, "503 Slow Down"
    with pytest.raises(StorageError) as caught:
        Storage(IngestConfig(backoff_s=0.001, max_attempts=2)).stat(f"{place}/a.mp4")
    for part in (f"{place}/a.mp4: 2 attempts failed", "503", "ingest.max_attempts"):
        assert part in str(caught.value)
    assert len(str(caught.value)) < 700 and "\n" not in str(caught.value)


def test_what_is_not_there_is_not_asked_for_again(s3: S3Lab, tmp_path: Path) -> None:
    for place in ("s3://castbank-lab/none.mp4", "memory://none.mp4", str(tmp_path / "none")):
        with pytest.raises(FileNotFoundError):
            STORAGE.stat(place)
    calls = s3.faults.num_calls
    assert calls <= 4
    assert STORAGE.files("memory://nowhere") == {}
    with pytest.raises((StorageError, FileNotFoundError)) as caught:
        STORAGE.files("s3://no-such-bucket/clips")
    assert "no-such-bucket" in str(caught.value) and s3.faults.num_calls - calls <= 3


def test_a_store_that_refuses_and_one_that_nobody_knows(s3: S3Lab) -> None:
    with pytest.raises(
        StorageError, match=r"^ftpx://…: no store of this kind is known; allowed are a path, s3://"
    ):
        STORAGE.stat("ftpx://host/a.mp4")


def test_a_remote_zip_is_read_in_place_and_not_whole(tmp_path: Path, s3: S3Lab) -> None:
    (tmp_path / "z").mkdir()
    content = random.Random(1).randbytes(200_000)
    with zipfile.ZipFile(tmp_path / "z" / "big.zip", "w") as packed:
        for k in range(40):
            packed.writestr(f"in/{k}.mp4", content)
    place = s3.put(tmp_path / "z", "zips") + "/big.zip"
    calls = s3.faults.num_calls
    with STORAGE.open(place) as stream, zipfile.ZipFile(stream) as packed:
        assert packed.read("in/17.mp4") == content
    assert s3.faults.num_calls - calls <= 8


def test_only_small_files_are_read_whole(folder: Path) -> None:
    with pytest.raises(InputError, match="more than 1000 bytes"):
        STORAGE.read(str(folder / "a.mp4"), 1000)
    with pytest.raises(InputError, match="ends at byte 300000, 300001 are expected; it was cut off"):
        list(STORAGE.ranges(str(folder / "a.mp4"), 0, 300_001))
