"""castbank bank as a person uses it: look, put together, take out; wrong input is one line and changes nothing."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.__main__ import main
from pipeline import model as models
from pipeline.identity.bank import IdentityBank
from pipeline.identity.tokens import tokens_of
from tests.tiny_run import make_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs from one network and one from another."""
    make_run(tmp_path / "first", 0, {"anna": 0, "ben": 1})
    make_run(tmp_path / "second", 0, {"anna": 2, "twin": 1})
    make_run(tmp_path / "third", 9, {"carl": 3})
    return tmp_path


def test_list_and_show(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bank", "list", str(runs / "first")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "NAME",
        "REFERENCES",
        "TOKENS",
        "CONSENT",
        "LICENCE",
        "PACK",
        "NETWORK",
        "DESCRIPTION",
    ]
    assert lines[1].split()[:6] == ["anna", "3", "2x24", "granted", "CC-BY-4.0", "embedded"]
    assert lines[1].endswith("anna, in a red hat")
    assert main(["bank", "show", str(runs / "first" / "export" / "bank"), "anna"]) == 0
    shown = capsys.readouterr().out
    assert "clip-7#3" in shown and "nearest      ben: cosine" in shown and "warning" not in shown
    assert main(["bank", "list", str(runs / "first"), "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["anna", "ben"]


def test_two_who_look_alike_are_pointed_out(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    merge = ["bank", "merge", str(runs / "first"), str(runs / "second"), "--output", str(runs / "cast")]
    assert main([*merge, "--rename", "anna=anna_2"]) == 0
    assert "4 characters: anna, ben, anna_2, twin" in capsys.readouterr().out
    assert main(["bank", "show", str(runs / "cast"), "ben", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["others"][0]["name"] == "twin"
    assert shown["warnings"][0].startswith("looks like twin: a pair of references at 0.9")
    assert shown["same_person"] == 0.4 and shown["own_similarity"]["least"] > 0.8


def test_banks_of_two_networks_become_one_with_tokens_made_anew(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merge = ["bank", "merge", str(runs / "first"), str(runs / "third"), "--output", str(runs / "cast")]
    assert main(merge) == 2
    assert "give --network RUN" in capsys.readouterr().err and not (runs / "cast").exists()
    assert main([*merge, "--network", str(runs / "first")]) == 0
    made, encoder = IdentityBank.load(runs / "cast"), models.load(runs / "first" / "export").identity.encoder
    assert torch.equal(made.entry("carl").tokens, tokens_of(encoder, made.entry("carl").references))
    draw = [
        "num_frames=3",
        "height_px=32",
        "width_px=48",
        "steps=1",
        "--prompt",
        "carl, anna",
        "--cast",
        "carl,anna",
    ]
    draw += ["--output", str(runs / "out.mp4"), "--bank"]
    assert main(["generate", str(runs / "first"), *draw, str(runs / "cast")]) == 0
    capsys.readouterr()
    assert main(["generate", str(runs / "third"), *draw, str(runs / "cast")]) == 2
    assert "made by another network" in capsys.readouterr().err


def test_remove(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bank", "remove", str(runs / "first"), "anna"]) == 0
    assert "anna taken out, 1 file deleted" in capsys.readouterr().out
    assert list(IdentityBank.load(runs / "first" / "export" / "bank").entries) == ["ben"]


def dies(words: list[str], doing: str, after: int) -> int:
    """Exit code of ``castbank bank`` in a process that ends, as by kill -9, before its next ``Path.doing`` after so
    many."""
    child = os.fork()
    if child == 0:
        done, real = itertools.count(), getattr(Path, doing)

        def next_one(path: Path, *more: Any) -> Any:
            return real(path, *more) if next(done) < after else os._exit(9)

        setattr(Path, doing, next_one)
        os._exit(main(["bank", *words]))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_merge_that_is_killed_leaves_no_bank_and_goes_through_again(runs: Path) -> None:
    merge = ["merge", str(runs / "first"), str(runs / "second"), "--rename", "anna=anna_2", "--output"]
    for renames in range(5):  # of four characters and the manifest
        output = runs / f"cast-{renames}"
        assert dies([*merge, str(output)], "replace", renames) == 9
        assert not (output / "manifest.json").exists() and list(output.iterdir())
        assert main(["bank", *merge, str(output)]) == 0
        assert list(IdentityBank.load(output).entries) == ["anna", "ben", "anna_2", "twin"]
        assert len(list(output.iterdir())) == 5


def test_a_removal_that_is_killed_has_removed_and_deletes_when_made_again(runs: Path) -> None:
    remove, bank = ["remove", str(runs / "first"), "anna"], runs / "first" / "export" / "bank"
    assert dies(remove, "replace", 0) == 9
    assert list(IdentityBank.load(bank).entries) == ["anna", "ben"]
    assert dies(remove, "unlink", 0) == 9
    assert list(IdentityBank.load(bank).entries) == ["ben"] and list(bank.glob("anna-*"))
    assert main(["bank", *remove]) == 0
    assert not list(bank.glob("*anna-*")) and len(list(bank.iterdir())) == 2


def test_files_of_others_are_never_taken_for_a_bank(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "loras").mkdir()
    (runs / "loras" / "style.safetensors").write_bytes(b"not ours")
    merge = ["bank", "merge", str(runs / "first"), str(runs / "third"), "--network", str(runs / "first")]
    assert main([*merge, "--output", str(runs / "loras")]) == 2
    assert "is not empty; give a new folder" in capsys.readouterr().err
    other = runs / "first" / "export" / "bank" / "style.safetensors"
    other.write_bytes(b"not ours")
    assert main(["bank", "remove", str(runs / "first"), "anna"]) == 0
    assert other.read_bytes() == b"not ours"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list", "nowhere"], "no such folder"),
        (["list", "."], "no identity bank in it, nor in its bank/ or export/bank/"),
        (["show", "first", "ana"], "did you mean 'anna'"),
        (["merge", "first", "--output", "cast"], "at least two"),
        (["merge", "first", "second", "--output", "cast"], "'anna' stands for one character in first"),
        (["merge", "first", "second", "--output", "cast", "--rename", "anna"], "give OLD=NEW"),
        (["merge", "first", "second", "--output", "first"], "not empty"),
        (["merge", "first", "third", "--output", "cast", "--network", "."], "no identity network here"),
        (["remove", "first", "anna", "bob"], "bob not in the bank; it holds anna, ben"),
    ],
)
def test_wrong_input_is_one_line_and_changes_nothing(
    words: list[str],
    message: str,
    runs: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(runs)
    before = sorted(str(path) for path in runs.rglob("*"))
    assert main(["bank", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert sorted(str(path) for path in runs.rglob("*")) == before
