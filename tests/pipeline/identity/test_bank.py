"""The bank on disk: complete, readable without us, refused when damaged, and never half replaced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from data_prep.records import InputError
from pipeline.identity.bank import BankEntry, IdentityBank


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
        texts = ("description", "pack", "consent", "licence", "provenance")
        assert [getattr(after, t) for t in texts] == [getattr(before, t) for t in texts]
    assert {p.parent for p in tmp_path.rglob("*") if p.is_file()} == {tmp_path}


def test_plain_safetensors_reads_a_character(tmp_path: Path) -> None:
    IdentityBank([entry("anna")]).save(tmp_path)
    (row,) = json.loads((tmp_path / "manifest.json").read_text())["characters"]
    with safe_open(tmp_path / row["file"], "pt") as file:
        assert set(file.keys()) == {"tokens", "references"}
        assert json.loads(file.metadata()["character"])["consent"] == "granted"


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
    manifest = json.loads((tmp_path / "manifest.json").read_text()) | {"schema": 2}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="schema 2"):
        IdentityBank.load(tmp_path)
