"""castbank compare as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.__main__ import main
from tests.many_evaluations import make_evaluation


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, content in {
        "a": make_evaluation(12),
        "b": make_evaluation(12, gain=0.2),
        "other": make_evaluation(3, seed=5),
    }.items():
        if name == "other":
            for row in content["videos"]:
                row["key"] = f"else {row['key']}"
        (tmp_path / name).mkdir()
        (tmp_path / name / "evaluation.json").write_text(json.dumps(content))
    return tmp_path


def test_two_runs_on_a_page(judged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "none=a", "bank=b", "--output", "out/page.html"]) == 0
    out = capsys.readouterr().out
    assert "bank against none" in out and "likeness/embedded" in out and "better  +0.200  12 pairs" in out
    assert "castbank comparison" in (judged / "out/page.html").read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a"], "one came; give two or more"),
        (["a", "x=a", "x=b"], "'x' comes twice; call it otherwise with NAME=FOLDER"),
        (["a", "none"], "no evaluation.json"),
        (["a", "other"], "other has no video of the same cast, prompt and seed"),
        (["a", "b", "--output", "page.txt"], "a file name that ends in .html"),
    ],
)
def test_wrong_words(
    judged: Path, words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *words]) == 2
    assert expected in capsys.readouterr().err
