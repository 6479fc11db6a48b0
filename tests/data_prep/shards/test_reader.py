"""The strict reader: each way in which a sample can be wrong is said by the sample's name."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from data_prep.shards import IndexRow, ShardError, ShardSet, encode_sample, row_of, write_index, write_tar
from data_prep.shards.files import INDEX, MANIFEST
from tests.small_shards import make_sample, make_shards

Members = dict[str, bytes]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("read") / "shards", 6)


def written(folder: Path, change: Callable[[IndexRow, Members], tuple[IndexRow, Members]]) -> ShardSet:
    """A folder with checksums that are right, of which the second of three samples was changed before."""
    folder.mkdir()
    encoded = []
    for k in range(3):
        sample = make_sample(k)
        pair = row_of("shard-000000.tar", sample.note, "train"), encode_sample(sample)
        encoded.append(change(*pair) if k == 1 else pair)
    made = write_tar(folder / "shard-000000.tar", encoded)
    write_index(folder, made.rows, "0" * 64, {}, [made.file])
    return ShardSet.open(folder)


def test_members_are_what_tarfile_finds(shards: Path) -> None:
    """Whatever is read by hand here is compared with the standard library's reader."""
    found = {row.key: members for row, members in ShardSet.open(shards).members()}
    slow: dict[str, Members] = {}
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            for info in tar:
                key, _, name = info.name.partition(".")
                stream = tar.extractfile(info)
                assert stream is not None
                slow.setdefault(key, {})[name] = stream.read()
    assert found == slow


def test_they_come_in_the_order_that_is_asked_for(shards: Path) -> None:
    opened = ShardSet.open(shards)
    keys = [row.key for row, _ in opened.members([5, 0, 3, 1])]
    assert keys == [opened.rows[at].key for at in (5, 0, 3, 1)]


def test_the_manifest_says_the_hash_of_each_file(shards: Path) -> None:
    for file in ShardSet.open(shards).manifest.shards:
        data = (shards / file.name).read_bytes()
        assert (file.num_bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_what_write_tar_knows_is_what_reading_finds(tmp_path: Path) -> None:
    opened = written(tmp_path / "shards", lambda row, members: (row, members))
    again = write_index(tmp_path / "shards", opened.rows, "0" * 64, {})
    assert again == opened.manifest


@pytest.mark.parametrize("kind", ["cut", "flipped", "gone"])
def test_damage_is_said_of_the_sample_that_has_it_and_the_others_are_read(tmp_path: Path, kind: str) -> None:
    folder = make_shards(tmp_path / "shards", 6)
    opened = ShardSet.open(folder)
    row = opened.rows[2]
    path = folder / row.shard
    data = bytearray(path.read_bytes())
    data[row.offset + 700] ^= 1
    if kind == "gone":
        path.unlink()
    else:
        path.write_bytes(data if kind == "flipped" else data[: row.offset + row.length - 512])
    with pytest.raises(ShardError, match=rf"sample {row.key}: .*(damaged|is missing)"):
        opened.read(2)
    assert [r.key for r, _ in opened.members([3, 4, 5])] == [r.key for r in opened.rows[3:]]
    if kind != "gone":
        assert opened.read(1).note.key == opened.rows[1].key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda row, m: (row, {k: v for k, v in m.items() if k != "mp4"}),
            "lacks mp4; it has json, labelmap.png",
        ),
        (lambda row, m: (replace(row, source_id="film-9"), m), "of another sample than the index says"),
        (lambda row, m: (replace(row, cast=("c03",)), m), "of another sample than the index says"),
        (lambda row, m: (replace(row, key="sample-777"), m), "of another sample than the index says"),
        (lambda row, m: (row, {**m, "json": m["json"][:-9]}), "json cannot be read"),
    ],
)
def test_what_was_packed_wrongly_is_said_of_its_sample(
    tmp_path: Path, change: Callable[[IndexRow, Members], tuple[IndexRow, Members]], message: str
) -> None:
    opened = written(tmp_path / "shards", change)
    with pytest.raises(
        ShardError, match=rf"sample {opened.rows[1].key} of '.*shard-000000.tar': .*{message}"
    ):
        opened.read(1)
    assert (opened.read(0).note.key, opened.read(2).note.key) == ("sample-000", "sample-002")


def test_a_member_of_another_sample_is_refused(tmp_path: Path) -> None:
    """As webdataset would take it: members that are not beside each other are two samples, or one, by luck."""
    opened = written(tmp_path / "shards", lambda row, m: (row, m))
    rows = list(opened.rows)
    span = (tmp_path / "shards" / rows[0].shard).read_bytes()[: rows[1].offset + rows[1].length]
    whole = replace(rows[1], offset=0, length=len(span), sha256=hashlib.sha256(span).hexdigest(), crc32="")
    opened.rows = (rows[0], whole, rows[2])
    with pytest.raises(ShardError, match=r"sample sample-001 .*'sample-000.json' is another sample's"):
        next(opened.members([1]))


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_other_writers_tars_are_read_too(tmp_path: Path, kind: int) -> None:
    """With a name in another header than ustar's: a pax header for a time with fractions."""
    folder = make_shards(tmp_path / "shards", 2)
    opened = ShardSet.open(folder)
    (row, members), *_ = opened.members([0])
    span = io.BytesIO()
    with tarfile.open(fileobj=span, mode="w", format=kind) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(f"{row.key}.{name}")
            info.size, info.mtime = len(data), 1.5 if kind == tarfile.PAX_FORMAT else 1
            tar.addfile(info, io.BytesIO(data))
        size = tar.offset
    (folder / row.shard).write_bytes(span.getvalue())
    digest = hashlib.sha256(span.getvalue()[:size]).hexdigest()
    opened.rows = (replace(row, length=size, sha256=digest, crc32=""),)
    assert next(opened.members())[1] == members
    assert opened.read(0).note.key == row.key


@pytest.mark.parametrize("what", ["source", "character"])
def test_a_leak_between_the_splits_is_refused_when_written_and_when_read(tmp_path: Path, what: str) -> None:
    folder = make_shards(tmp_path / "shards", 6)
    rows = list(ShardSet.open(folder, "all").rows)
    leak = replace(
        rows[5],
        split="validation",
        **({"source_id": rows[0].source_id, "cast": ("new",)} if what == "source" else {}),
    )
    with pytest.raises(
        ShardError, match=rf"sample {leak.key} is for validation, and its {what} .* for train"
    ):
        write_index(folder, [*rows[:5], leak], "0" * 64, {})
    text = "".join(json.dumps(asdict(row), sort_keys=True) + "\n" for row in [*rows[:5], leak])
    (folder / INDEX).write_text(text)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["index_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ShardError, match=rf"its {what} .* prepare the shards again"):
        ShardSet.open(folder)


def test_an_index_from_before_there_was_a_split_is_for_training(tmp_path: Path) -> None:
    folder = make_shards(tmp_path / "shards", 2)
    lines = [json.loads(line) for line in (folder / INDEX).read_text().splitlines()]
    text = "".join(json.dumps({k: v for k, v in line.items() if k != "split"}) + "\n" for line in lines)
    (folder / INDEX).write_text(text)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["index_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert len(ShardSet.open(folder)) == 2
    assert len(ShardSet.open(folder, "validation")) == 0
