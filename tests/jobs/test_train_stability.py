"""castbank train on batches that spoil it, on a few samples alone, and as a dry run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from jobs.__main__ import main
from tests.small_shards import make_shards
from tests.small_training import SMALL, Workplace

QUICK = ("tracking.kind=none", "engine.num_processes=1", "engine.zero_stage=0")


@pytest.fixture(scope="module")
def untrained(face_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """Small shards and their configuration, and no run."""
    root = tmp_path_factory.mktemp("untrained")
    make_shards(root / "shards")
    (root / "small.yaml").write_text(SMALL)
    return Workplace(root)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_dry_run_says_what_it_takes_and_writes_nothing(
    untrained: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = untrained.arguments("dry", "tracking.kind=none", "ema.decay=0.9", "model.adapter.kind=none")
    assert main([*arguments, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert not untrained.folder("dry").exists()
    trained, frozen = (
        int(found.replace(",", "")) for found in re.findall(r"(?:trained|frozen) ([\d,]+)", said)
    )
    assert trained > 1000
    assert frozen > 1000
    assert "12 samples, 5.3 times each in 16 steps of 4; 18 visual tokens a sample, 72 a step" in said
    assert "2 ranks, ZeRO 2, fp32: peak memory of the rank that has most" in said
    assert f"at most 2 + 1 of {trained * 16 / 1e6:,.1f} MB; {untrained.folder('dry') / 'export'}" in said


def test_overfitting_takes_the_same_few_samples_in_one_order(
    untrained: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = untrained.arguments("few", *QUICK, "num_steps=3", "stability.spike_score=0")
    assert main([*arguments, "--overfit", "2"]) == 0
    assert "trained 3 steps on 2 samples alone; no export is made of that" in capsys.readouterr().out
    assert not (untrained.folder("few") / "export").exists()
    assert main([*arguments, "--overfit", "-1"]) == 2
    assert "data.overfit=-1: must be at least 0" in capsys.readouterr().err


def test_a_run_that_skips_goes_on_and_keeps_the_samples(
    untrained: Workplace, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = [*QUICK, "num_steps=4", "model.adapter.learning_rate=1e30", "stability.on_nonfinite=skip"]
    with pytest.raises(RuntimeError, match=r"step 4: the loss is not finite \(samples sample-0"):
        main(untrained.arguments("skips", *bad, "stability.max_skipped=2"))
    curve = untrained.curve("skips")
    assert [line["skipped"] for line in curve] == [0.0, 1.0, 1.0]
    assert "loss" in curve[0]
    assert "loss" not in curve[1]
    kept = lines(untrained.folder("skips") / "nonfinite.jsonl")
    assert [line["step"] for line in kept] == [2, 3, 4]
    assert all(len(row["keys"]) == 4 for line in kept for row in line["samples"])
    assert "step 2: the loss is not finite" in capfd.readouterr().err
