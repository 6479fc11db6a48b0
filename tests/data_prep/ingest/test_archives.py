"""Zips and tars read in place, the hostile ones made here byte by byte."""

from __future__ import annotations

import io
import random
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from data_prep.config import IngestConfig
from data_prep.ingest.archives import DamagedError, Member, Refusal, members, opened, unsafe
from data_prep.ingest.storage import Storage
from data_prep.records import InputError

STORAGE = Storage(IngestConfig())
CONTENT = random.Random(0).randbytes(76_800)


def zipped(path: Path, *entries: tuple[str, bytes], how: int = zipfile.ZIP_STORED) -> str:
    with zipfile.ZipFile(path, "w", how) as packed:
        for name, content in entries:
            packed.writestr(name, content)
    return str(path)


def tarred(path: Path, *entries: tuple[str, bytes], mode: str = "w") -> str:
    with tarfile.open(path, mode) as packed:  # type: ignore[call-overload]
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    return str(path)


def read(member: Member) -> bytes:
    with opened(STORAGE, member.address) as parts:
        return b"".join(parts)


@pytest.mark.parametrize("name", ["a.zip", "deflated.zip", "a.tar"])
def test_members_are_read_where_they_lie(name: str, tmp_path: Path) -> None:
    long = "long/" + "x" * 300 + ".mp4"
    entries = [("in/a.mp4", CONTENT), (long, b"b"), ("in/c.txt", "名前".encode()), ("void.mp4", b"")]
    make = tarred if name.endswith("tar") else zipped
    kind = {"how": zipfile.ZIP_DEFLATED} if name.startswith("d") else {}
    place = make(tmp_path / name, *entries, **kind)  # type: ignore[operator]
    found = members(STORAGE, place)
    assert [(m.name, m.num_bytes) for m in found] == [(n, len(c)) for n, c in entries]
    assert [read(member) for member in found] == [content for _, content in entries]
    assert [member.refusal(STORAGE.limits) for member in found] == [None] * 4


def test_what_a_mac_adds_and_what_is_no_file_is_left_out(tmp_path: Path) -> None:
    place = zipped(tmp_path / "a.zip", ("in/", b""), ("in/a.mp4", b"a"), ("__MACOSX/in/._a.mp4", b"x"))
    assert [m.name for m in members(STORAGE, place)] == ["in/a.mp4"]
    with tarfile.open(tmp_path / "a.tar", "w") as packed:
        link = tarfile.TarInfo("passwd.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        packed.addfile(link)
    assert members(STORAGE, str(tmp_path / "a.tar")) == []


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize(
    "name", ["../a.mp4", "/etc/a.mp4", "in/../../a.mp4", "C:\\a.mp4", "a\nb.mp4", "..\\a.mp4"]
)
def test_an_archive_that_would_write_elsewhere_is_refused_whole(
    make: object, name: str, tmp_path: Path
) -> None:
    ending = ".zip" if make is zipped else ".tar"
    place = make(tmp_path / f"evil{ending}", ("good.mp4", b"x"), (name, b"x"))  # type: ignore[operator]
    with pytest.raises(InputError, match=r"evil.*leaves the folder it is unpacked into.*remove it"):
        members(STORAGE, place)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("make", [zipped, tarred])
def test_two_files_of_one_name(make: object, tmp_path: Path) -> None:
    ending = ".zip" if make is zipped else ".tar"
    place = make(tmp_path / f"two{ending}", ("a.mp4", b"x"), ("a.mp4", b"y"))  # type: ignore[operator]
    with pytest.raises(InputError, match=r"holds 'a\.mp4' twice"):
        members(STORAGE, place)


def test_a_bomb_is_known_by_its_ratio_or_its_size(tmp_path: Path) -> None:
    place = zipped(tmp_path / "a.zip", ("bomb.mp4", bytes(10**6)), how=zipfile.ZIP_DEFLATED)
    (bomb,) = members(STORAGE, place)
    refusal = bomb.refusal(STORAGE.limits)
    assert refusal is not None and (refusal.rule, refusal.limit) == ("zip_bomb", "50 times")
    assert 900 < int(refusal.value.split()[0]) < 1100
    (large,) = members(STORAGE, zipped(tmp_path / "b.zip", ("large.mp4", CONTENT)))
    assert large.refusal(IngestConfig(max_clip_bytes=1000)) == Refusal(
        "zip_bomb", "76800 bytes", "1000 bytes"
    )


def test_a_bomb_that_states_less_than_it_holds_gives_no_more(tmp_path: Path) -> None:
    place = Path(zipped(tmp_path / "a.zip", ("bomb.mp4", bytes(10**6)), how=zipfile.ZIP_DEFLATED))
    place.write_bytes(place.read_bytes().replace(struct.pack("<L", 10**6), struct.pack("<L", 5000)))
    (member,) = members(STORAGE, str(place))
    assert member.refusal(STORAGE.limits) is None
    taken = 0
    with pytest.raises(DamagedError, match=r"bomb\.mp4.*CRC"), opened(STORAGE, member.address) as parts:
        for part in parts:
            taken += len(part)
    assert taken <= 5000


def test_a_password_a_flipped_bit_and_a_cut(tmp_path: Path) -> None:
    place = Path(zipped(tmp_path / "a.zip", ("a.mp4", CONTENT)))
    whole = place.read_bytes()
    (member,) = members(STORAGE, str(place))
    place.write_bytes(whole.replace(CONTENT[:8], b"\0" * 8, 1))
    with pytest.raises(DamagedError, match="Bad CRC-32"):
        read(member)
    place.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a whole zip"):
        members(STORAGE, str(place))
    at = whole.index(b"PK\x01\x02") + 8  # the flags in the central directory
    place.write_bytes(whole[:at] + b"\1" + whole[at + 1 :])
    (member,) = members(STORAGE, str(place))
    assert member.refusal(STORAGE.limits) == Refusal("encrypted", "a.mp4", "members without a password")
    with pytest.raises(DamagedError):
        read(member)


def test_a_tar_that_was_cut_off_or_compressed(tmp_path: Path) -> None:
    place = Path(tarred(tmp_path / "a.tar", ("a.mp4", CONTENT), ("b.mp4", CONTENT)))
    place.write_bytes(place.read_bytes()[:100_000])
    with pytest.raises(InputError, match=r"a\.tar: not a whole, plain tar \(unexpected end of data\)"):
        members(STORAGE, str(place))
    packed = tarred(tmp_path / "b.tar", ("a.mp4", CONTENT), mode="w:gz")
    with pytest.raises(InputError, match="if it is compressed, unpack it"):
        members(STORAGE, packed)


@pytest.mark.parametrize("name", ["", ".", "/a", "../a", "a/../b", "c:a", "a\0b", "a\tb", "a::b", "\\a"])
def test_unsafe_names(name: str) -> None:
    assert unsafe(name)


@pytest.mark.parametrize("name", ["a", "a..b/c", "名前/ü.mp4", "a:b"[:1] + "/b:c", "..a", "x" * 300])
def test_safe_names(name: str) -> None:
    assert not unsafe(name)
