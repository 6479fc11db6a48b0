"""castbank train with all that watches it: held-out samples, videos at steps, curves; also seen in MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.shards import ShardSet
from jobs.__main__ import main
from pipeline.training.validation import held_out
from tests.small_training import Workplace

WATCHED = (
    "num_steps=4",
    "data.held_out=0.3",
    "validation.every_steps=2",
    "validation.num_samples=3",
    "validation.levels=[0.3,0.9]",
    "tracking.sample_every=2",
    "tracking.num_samples=1",
    "tracking.num_characters=2",
    "tracking.registered_model=small cast",
    "checkpoints.keep_best=1",
    "checkpoints.best_of=validation_loss",
    "checkpoints.every_steps=2",
    "model.losses.identity=0.05",
    "model.losses.identity_below=1",
    "model.losses.identity_min_face_px=4",
)


@pytest.fixture(scope="module")
def watched(place: Workplace) -> Workplace:
    assert main(place.arguments("watched", *WATCHED)) == 0
    return place


def at_step(place: Workplace, run: str, step: int) -> dict[str, float]:
    return next(line for line in place.curve(run) if line["step"] == step)


def test_held_out_sources_are_validated_and_not_trained_on(watched: Workplace) -> None:
    shards = ShardSet.open(watched.root / "shards")
    kept = held_out(shards.rows, 0.3, seed=0)
    assert 0 < sum(row.source_id in kept for row in shards.rows) < len(shards.rows)
    found = at_step(watched, "watched", 2)
    assert found["validation_loss"] == pytest.approx(
        (found["validation_loss_at_0.30"] + found["validation_loss_at_0.90"]) / 2, rel=1e-4
    )
    assert 0 <= found["validation_router_accuracy"] <= 1
    assert "validation_loss" not in at_step(watched, "watched", 3)


@pytest.mark.slow
def test_one_process_under_zero_3_finds_the_same(watched: Workplace) -> None:
    other = ("engine.num_processes=1", "engine.zero_stage=3", "tracking.kind=none")
    assert main(watched.arguments("alone", *WATCHED, *other)) == 0
    for step in (2, 4):
        first, second = (at_step(watched, run, step) for run in ("watched", "alone"))
        for name in ("validation_loss", "validation_loss_at_0.90", "loss", "visual_tokens"):
            assert second[name] == pytest.approx(first[name], rel=1e-4), name
    pictures = watched.folder("alone") / "samples" / "step-00000002"
    assert sorted(path.suffix for path in pictures.iterdir()) == [".json", ".mp4", ".png"]


def test_every_step_has_its_curves(watched: Workplace) -> None:
    names = {name for line in watched.curve("watched") for name in line}
    assert len([name for name in names if name.startswith("mask_error/")]) == 2
    assert any(line["loss_identity"] > 0 for line in watched.curve("watched"))
    assert names & {f"loss_diffusion_at_{quarter}" for quarter in ("0.50_0.75", "0.75_1.00")}
    line = json.loads((watched.folder("watched") / "metrics.jsonl").read_text().splitlines()[0])
    for name in ("samples_per_s", "tokens_per_s", "memory_mb", "model_tflops_per_s", "visual_tokens"):
        assert line[name] > 0, name


def test_mlflow_shows_the_videos_of_a_step_and_the_registered_model(watched: Workplace) -> None:
    client = client_of(watched.root / "runs")
    (version,) = client.search_model_versions("name = 'small cast'")
    (run,) = client.search_runs(["1"], "attributes.run_name = 'watched'")
    assert version.run_id == run.info.run_id
    shown = [item.path for item in client.list_artifacts(run.info.run_id, "samples/step-00000002")]
    assert sorted(Path(path).suffix for path in shown) == [".mp4", ".png"]
    assert {item.path for item in client.list_artifacts(run.info.run_id, "export")} >= {"export/bank"}


def client_of(root: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{root / 'mlflow.db'}")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["validation.every_steps=2"], r"validation\.every_steps=2: on what\? Give data\.held_out"),
        (
            ["validation.every_steps=2", "data.held_out=0.3", "validation.levels=[0]"],
            r"validation\.levels=\[0",
        ),
        (
            ["model.losses.identity=0.1", "data.cache=require"],
            r"model\.losses\.identity=0\.1 looks at frames",
        ),
        (["data.held_out=1.5"], r"data\.held_out=1\.5: must be from 0 to 0\.9"),
    ],
)
def test_wrong_input(
    place: Workplace, overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    assert main(place.arguments("never", *overrides)) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not place.folder("never").exists()
