"""castbank suite as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.__main__ import main


def test_plan_and_collect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts/Human_Identity.txt").write_text("A man runs.\nA man sits.\n")
    (tmp_path / "prompts/Material.txt").write_text("Ice melts.\n")
    output = tmp_path / "plan" / "prompts.jsonl"
    words = [
        "suite",
        "plan",
        "vbench2",
        str(tmp_path / "prompts"),
        "--videos",
        "made",
        "--output",
        str(output),
    ]
    assert main([*words, "--cast", "anna, ben", "--seed", "5", "--only", "Human_Identity"]) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(rows) == 6 and rows[1] == {
        "prompt": "A man runs.",
        "cast": ["anna", "ben"],
        "seed": 6,
        "output": "made/Human_Identity/A man runs.-1.mp4",
    }
    assert "6 videos of 1 topics; cast from a bank: anna, ben" in capsys.readouterr().out
    (tmp_path / "a_eval_results.json").write_text('{"Material": [0.25, []]}')
    collected = tmp_path / "collected.json"
    assert main(["suite", "collect", "vbench2", str(tmp_path), "--output", str(collected)]) == 0
    assert json.loads(collected.read_text())["figures"] == {"Material": 0.25}
    assert "Material" in capsys.readouterr().out
    assert main(["suite", "list"]) == 0
    assert "entitybench" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["plan", "vbench", ".", "--videos", "v", "--output", "p.jsonl"],
            "suite: came 'vbench'; there are opens2v",
        ),
        (
            ["plan", "vbench2", "none", "--videos", "v", "--output", "p.jsonl"],
            "PROMPTS: 'none': no such file",
        ),
        (["plan", "vbench2", ".", "--videos", "v", "--output", "p.json"], "a file name that ends in .jsonl"),
        (
            ["plan", "vbench2", "l", "--videos", "v", "--output", "p.jsonl", "--only", "X"],
            "--only: came X; l has ",
        ),
        (["collect", "compbench", "."], "no result of T2V-CompBench"),
    ],
)
def test_wrong_words(
    words: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "l").mkdir()
    (tmp_path / "l" / "Material.txt").write_text("Ice melts.\n")
    assert main(["suite", *words]) == 2
    assert expected in capsys.readouterr().err
