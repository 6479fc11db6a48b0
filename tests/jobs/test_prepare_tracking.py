"""A preparation in MLflow: told once, with what a person looks for, and never in the way of the work."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep import ledger
from data_prep.config import PrepareConfig, TrackingConfig
from data_prep.records import Decision
from data_prep.running.stages import Stage
from data_prep.shards import ShardSet, write_index
from jobs.config import save
from jobs.prepare_tracking import figures, track
from tests.small_shards import make_shards

FACTS = {
    "num_clips": 12,
    "num_clips_kept": 11,
    "calibration": {
        **{"threshold": 0.4, "false_accept": 0.01, "false_reject": None, "pack": "embedded"},
        **{"num_positive": 50, "num_negative": 5},
    },
    "lost_by_rule": {"window: too_few_references": 3},
    "limits": {"min_similarity": 0.4},
}


BEGAN_MS = 1_700_000_000_000
STAGES = (Stage("analyse", 4.0, 2, 0.9), Stage("pack", 1.0, 1, None))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PrepareConfig:
    """Of a finished output, as castbank prepare leaves it."""
    output = make_shards(tmp_path_factory.mktemp("tracked") / "it's shards", 6)
    write_index(output, ShardSet.open(output).rows, "0" * 64, FACTS)
    lost = Decision("w", "window", "dropped", "select", "too_few_references", "1", ">= 3")
    ledger.write(output / ledger.LEDGER, [lost, Decision("w2", "sample", "kept", "select")])
    curve = [{"threshold": at / 10, "false_accept": 0.1, "false_reject": 0.2} for at in range(10)]
    facts = {"threshold": 0.4, "num_positive": 5, "num_negative": 5}
    (output / "calibration.json").write_text(json.dumps(facts | {"curve": curve}))
    config = PrepareConfig(manifest="short.csv", output=str(output))
    save(config, output)
    return config


def test_a_run_has_what_a_person_looks_for_and_is_told_once(config: PrepareConfig) -> None:
    from mlflow import MlflowClient

    output = Path(config.output)
    said = track(config, BEGAN_MS, STAGES)
    assert "in experiment 'castbank'" in said
    client = MlflowClient(f"sqlite:///{output.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("castbank").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.info.run_id in said
    assert (run.info.status, run.info.run_name) == ("FINISHED", output.name)
    assert run.data.params["windows.num_frames"] == "17"
    metrics = run.data.metrics
    assert (metrics["num_clips"], metrics["num_shards"]) == (12, 2)
    assert metrics["identities/false_accept"] == 0.01
    assert metrics["left_out/window/too_few_references"] == 3
    assert (metrics["seconds/analyse"], metrics["seconds/pack"]) == (4.0, 1.0)
    assert metrics["workers_busy/analyse"] == 0.9 and "workers_busy/pack" not in metrics
    (dataset,) = run.inputs.dataset_inputs
    index = ShardSet.open(output).manifest.index_sha256
    assert (dataset.dataset.name, dataset.dataset.digest) == (output.name, index[:36])
    top = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert top >= {
        "report.html",
        "ledger.parquet",
        "config.yaml",
        "manifest.json",
        "calibration.json",
        "plots",
    }
    plots = {file.path for file in client.list_artifacts(run.info.run_id, "plots")}
    assert {"plots/calibration.png", "plots/what_became.png", "plots/distributions.png"} <= plots
    assert track(config, BEGAN_MS, STAGES) == ""
    assert len(client.search_runs([experiment])) == 1
    (output / ".work" / "mlflow.json").unlink()  # killed before it could note that it had told
    assert run.info.run_id in track(config, BEGAN_MS, STAGES)
    assert len(client.search_runs([experiment])) == 1


def test_a_server_that_is_away_costs_a_warning(
    config: PrepareConfig, caplog: pytest.LogCaptureFixture
) -> None:
    away = replace(config, tracking=TrackingConfig(uri="http://127.0.0.1:9"))
    assert track(away, BEGAN_MS, STAGES) == ""
    assert "the shards are whole, and the same command again tells it" in caplog.text


def test_who_wants_none_gets_none(config: PrepareConfig, tmp_path: Path) -> None:
    output = make_shards(tmp_path / "shards", 2)
    none = replace(config, output=str(output), tracking=TrackingConfig(kind="none"))
    assert track(none, BEGAN_MS, STAGES) == ""
    assert not (tmp_path / "mlflow.db").exists()


def test_numbers_that_are_none_are_left_out(config: PrepareConfig) -> None:
    found = figures(ShardSet.open(Path(config.output)).manifest)
    assert "identities/false_reject" not in found
    assert "identities/pack" not in found
