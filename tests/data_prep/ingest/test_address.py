"""Addresses as text and back; fsspec's own chains mean the same."""

from __future__ import annotations

import zipfile
from pathlib import Path

import fsspec
import pytest

from data_prep.ingest.address import Address, below, full, parent, scheme

ADDRESSES = [
    Address("/data/a.mp4"),
    Address("s3://bucket/a b#c?.mp4"),
    Address("/data/part 1.zip", "zip", "in/名前.mp4"),
    Address("s3://bucket/part.zip", "zip", "in/#bytes=1-2"),
    Address("gs://bucket/00.tar", "tar", "a/b.mp4", 512, 9000),
    Address("/data/::/00.tar", "tar", "#bytes=3-4.mp4", 0, 1),
]


@pytest.mark.parametrize("address", ADDRESSES, ids=str)
def test_text_and_back(address: Address) -> None:
    assert Address.parse(str(address)) == address
    assert address.is_plain_file == (str(address) == "/data/a.mp4")


def test_fsspec_reads_the_address_of_a_zips_member(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "part.zip", "w") as packed:
        packed.writestr("in/a.mp4", b"film")
    with fsspec.open(str(Address(str(tmp_path / "part.zip"), "zip", "in/a.mp4"))) as stream:
        assert stream.read() == b"film"


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [scheme(place) for place in ("s3://b/k", "HF://x", "/a/b", "C:\\x", "a://")] == [
        "s3",
        "hf",
        "",
        "",
        "a",
    ]
    assert (parent("s3://b/k/x.csv"), parent("/x.csv"), parent("x.csv")) == ("s3://b/k", "/", ".")
    assert below("s3://b/k/", "a/b.mp4") == "s3://b/k/a/b.mp4"
    assert (full("a.csv"), full("file:///x/a.csv"), full("s3://b/a")) == (
        str(tmp_path / "a.csv"),
        "/x/a.csv",
        "s3://b/a",
    )
