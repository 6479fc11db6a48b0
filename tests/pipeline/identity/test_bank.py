"""The bank on disk: complete, readable without us, refused when damaged, and never half replaced."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from data_prep.records import InputError
from pipeline.identity.bank import BankEntry, IdentityBank, find_bank, remove
from pipeline.identity.merge import same


def entry(name: str, **changes: object) -> BankEntry:
    generator = torch.Generator().manual_seed(len(name))
    fields: dict[str, object] = {
        "tokens": torch.randn(3, 8, generator=generator),
        "references": torch.randn(4, 16, generator=generator),
        "description": f"{name}, with a red hat",
        "pack": "embedded",
        "consent": "granted",
        "licence": "CC-BY-4.0",
        "provenance": ("clip-1:12", "clip-7:3"),
        "network": "0123456789abcdef",
    }
    return BankEntry(name=name, **{**fields, **changes})  # type: ignore[arg-type]


def test_everything_comes_back(tmp_path: Path) -> None:
    entries = [entry("anna"), entry("Señor Ben/../x", provenance=(), consent="unknown")]
    IdentityBank(entries).save(tmp_path)
    loaded = IdentityBank.load(tmp_path)
    assert list(loaded.entries) == [e.name for e in entries]
    for before in entries:
        after = loaded.entry(before.name)
        assert torch.equal(after.tokens, before.tokens) and torch.equal(after.references, before.references)
        texts = ("description", "pack", "consent", "licence", "provenance", "network")
        assert [getattr(after, t) for t in texts] == [getattr(before, t) for t in texts]
    assert {p.parent for p in tmp_path.rglob("*") if p.is_file()} == {tmp_path}


def test_plain_json_and_safetensors_read_all_there_is(tmp_path: Path) -> None:
    written = {name: entry(name) for name in ("anna", "ben")}
    IdentityBank(written.values()).save(tmp_path)
    read = {}
    for row in json.loads((tmp_path / "manifest.json").read_text())["characters"]:
        assert hashlib.sha256((tmp_path / row["file"]).read_bytes()).hexdigest() == row["sha256"]
        with safe_open(tmp_path / row["file"], "np") as file:
            texts = json.loads(file.metadata()["character"])
            tensors = {name: file.get_tensor(name) for name in ("tokens", "references")}
            read[row["name"]] = {**texts, **tensors}
        assert (texts["consent"], texts["network"]) == (row["consent"], row["network"])
    for name, before in written.items():
        assert read[name].keys() == {f.name for f in dataclasses.fields(BankEntry)} - {"picture", "landmarks"}
        assert (read[name]["tokens"] == before.tokens.numpy()).all()
        assert (read[name]["references"] == before.references.numpy()).all()
        assert tuple(read[name]["provenance"]) == before.provenance


def test_cast_stacks_tokens_by_slot() -> None:
    bank = IdentityBank([entry("anna"), entry("ben"), entry("carl")])
    tokens = bank.cast(["carl", "anna"])
    assert torch.equal(tokens, torch.stack([bank.entry("carl").tokens, bank.entry("anna").tokens]))


@pytest.mark.parametrize(
    ("names", "message"),
    [(["ana"], "did you mean 'anna'.*anna, ben"), (["anna", "anna"], "once"), ([], "at least one")],
)
def test_a_wrong_cast_says_who_is_there(names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        IdentityBank([entry("anna"), entry("ben")]).cast(names)


def test_nobody_twice_and_nobody_who_refused() -> None:
    with pytest.raises(InputError, match="twice"):
        IdentityBank([entry("anna"), entry("anna")])
    with pytest.raises(InputError, match="consent of 'anna' is 'refused'"):
        IdentityBank([entry("anna", consent="refused")])


def test_same_bank_same_bytes_and_no_leftovers(tmp_path: Path) -> None:
    IdentityBank([entry("anna"), entry("ben")]).save(tmp_path / "a")
    IdentityBank([entry("carl"), entry("anna", tokens=torch.zeros(3, 8))]).save(tmp_path / "b")
    IdentityBank([entry("anna"), entry("ben")]).save(tmp_path / "b")
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / f).iterdir()} for f in "ab")
    assert first == second


def test_a_save_that_dies_leaves_the_old_bank(tmp_path: Path) -> None:
    IdentityBank([entry("anna")]).save(tmp_path)
    unwritable = entry("ben", provenance=(object(),))
    with pytest.raises(TypeError):
        IdentityBank([entry("anna", tokens=torch.zeros(3, 8)), unwritable]).save(tmp_path)
    loaded = IdentityBank.load(tmp_path)
    assert list(loaded.entries) == ["anna"] and torch.equal(loaded.entry("anna").tokens, entry("anna").tokens)


def test_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no manifest\.json"):
        IdentityBank.load(tmp_path)
    IdentityBank([entry("anna")]).save(tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"anna-.*not as its manifest says"):
        IdentityBank.load(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match="missing"):
        IdentityBank.load(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text()) | {"schema": 5}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="schema 5"):
        IdentityBank.load(tmp_path)


def test_a_bank_of_the_first_schema_is_still_read(tmp_path: Path) -> None:
    IdentityBank([entry("anna")]).save(tmp_path)
    (row,) = json.loads((tmp_path / "manifest.json").read_text())["characters"]
    with safe_open(tmp_path / row["file"], "pt") as file:
        texts = json.loads(file.metadata()["character"])
        tensors = {name: file.get_tensor(name) for name in ("tokens", "references")}
    del texts["network"], row["network"]
    content = save(tensors, {"character": json.dumps(texts)})
    (tmp_path / row["file"]).write_bytes(content)
    row["sha256"] = hashlib.sha256(content).hexdigest()
    (tmp_path / "manifest.json").write_text(json.dumps({"schema": 1, "characters": [row]}))
    assert IdentityBank.load(tmp_path).entry("anna").network == ""


def test_pictures_come_back_as_they_were_and_may_be_missing(tmp_path: Path) -> None:
    picture = torch.randint(0, 256, (112, 112, 3), dtype=torch.uint8)
    shown = entry("anna", picture=picture, landmarks=torch.rand(5, 2))
    IdentityBank([shown, entry("ben")]).save(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["schema"] == 4
    loaded = IdentityBank.load(tmp_path)
    assert same(loaded.entry("anna"), shown) and same(loaded.entry("ben"), entry("ben"))
    assert not same(loaded.entry("anna"), dataclasses.replace(shown, picture=255 - picture))
    assert not same(loaded.entry("anna"), entry("anna"))
    cast = loaded.pictures(["anna", "anna"])
    assert torch.equal(cast.crops, torch.stack([picture] * 2)) and cast.landmarks.shape == (2, 5, 2)
    with pytest.raises(InputError, match=r"no picture of ben, .*model\.identity\.low_frequency"):
        loaded.pictures(["ben", "anna"])
    remove(tmp_path, ["ben"])
    assert same(IdentityBank.load(tmp_path).entry("anna"), shown)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"schema": 2, "characters": []}))
    assert IdentityBank.load(tmp_path).entries == {}  # of an earlier version


def test_a_removed_character_leaves_no_file_and_no_line(tmp_path: Path) -> None:
    IdentityBank([entry("anna"), entry("ben"), entry("Señor X")]).save(tmp_path)
    (of_ben,) = tmp_path.glob("ben-*")
    before = of_ben.stat().st_mtime_ns
    assert remove(tmp_path, ["anna", "Señor X"]) == 2
    assert list(IdentityBank.load(tmp_path).entries) == ["ben"]
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.json", of_ben.name}
    assert "anna" not in (tmp_path / "manifest.json").read_text()
    assert of_ben.stat().st_mtime_ns == before  # nobody else's entry is touched
    remove(tmp_path, ["ben"])
    assert IdentityBank.load(tmp_path).entries == {}


def test_removing_does_not_need_the_other_entries_to_be_whole(tmp_path: Path) -> None:
    IdentityBank([entry("anna"), entry("ben")]).save(tmp_path)
    next(tmp_path.glob("ben-*")).write_bytes(b"torn")
    remove(tmp_path, ["anna"])
    assert not list(tmp_path.glob("anna-*"))


def test_nobody_is_removed_where_one_name_is_wrong(tmp_path: Path) -> None:
    IdentityBank([entry("anna"), entry("ben")]).save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match="bob not in the bank; it holds anna, ben"):
        remove(tmp_path, ["anna", "bob"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def killed_at(call: int) -> Callable[[], bool]:
    """Whether this is the n-th time it is asked."""
    calls = itertools.count(1)
    return lambda: next(calls) == call


@pytest.mark.parametrize("call", range(1, 7))
def test_a_removal_that_dies_leaves_a_whole_bank_and_can_be_made_again(
    call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies at its n-th change of the folder: os.fsync of the manifest, its renaming, the deletions."""
    IdentityBank([entry("anna"), entry("ben"), entry("carl")]).save(tmp_path)
    dies = killed_at(call)
    for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink")):
        plain = getattr(owner, name)

        def maybe(*args: object, _plain: Callable[..., object] = plain, **more: object) -> object:
            if dies():
                raise KeyboardInterrupt
            return _plain(*args, **more)

        monkeypatch.setattr(owner, name, maybe)
    with pytest.raises(KeyboardInterrupt):
        remove(tmp_path, ["anna", "ben"])
    monkeypatch.undo()
    assert list(IdentityBank.load(tmp_path).entries) in (["anna", "ben", "carl"], ["carl"])
    remove(tmp_path, ["anna", "ben"])
    assert list(IdentityBank.load(tmp_path).entries) == ["carl"]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_bank_is_found_in_its_own_folder_an_export_and_a_run(tmp_path: Path) -> None:
    bank = tmp_path / "run" / "export" / "bank"
    IdentityBank([entry("anna")]).save(bank)
    assert {find_bank(folder) for folder in (bank, bank.parent, bank.parent.parent)} == {bank}
    with pytest.raises(InputError, match="no such folder"):
        find_bank(tmp_path / "nowhere")
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "manifest.json").write_text('{"schema": 1, "num_samples": 3}')
    with pytest.raises(InputError, match="no identity bank in it"):
        find_bank(shards)
    (shards / "config.yaml").write_text("run: shards")
    with pytest.raises(InputError, match="not finished"):
        find_bank(shards)
