"""Tracking against a real MLflow store, and against no server at all: nothing blocks, nothing is lost."""

from __future__ import annotations

import json
import logging
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import TrackingConfig
from pipeline.tracking.mlflow_tracker import MlflowTracker, out_of_sight
from pipeline.tracking.spool import Spool
from pipeline.tracking.tracker import TRACKERS, TrackedRun

SQLITE = TrackingConfig(flush_s=0.1, max_wait_stopped_s=60)


def tracked(folder: Path) -> TrackedRun:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    parameters = {"seed": "0", **{f"section.key{k}": str(k) for k in range(150)}}
    profile = {"num_samples": 12}
    return TrackedRun("run-1", folder, parameters, {"castbank.base": ""}, Path("shards"), "d" * 36, profile)


def the_run(root: Path) -> tuple[Any, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("castbank")
    (run,) = client.search_runs([experiment.experiment_id])
    return client, run


def dead_uri() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_everything_arrives_once_and_a_resumed_run_goes_on_in_the_same(tmp_path: Path) -> None:
    run = tracked(tmp_path / "runs" / "first")
    picture = run.folder / "sheet.txt"
    picture.write_text("picture")
    first = MlflowTracker(SQLITE, run)
    for step in (1, 2, 3):
        first.log(step, {"loss": 1.0 / step})
    first.artifact(picture, "samples")
    first.close("KILLED")
    client, seen = the_run(tmp_path / "runs")
    assert seen.info.status == "KILLED"

    again = MlflowTracker(SQLITE, run)
    for step in (2, 3, 4):  # resumed from a checkpoint at step 1
        again.log(step, {"loss": 1.0 / step})
    again.close("FINISHED")
    client, seen = the_run(tmp_path / "runs")
    assert seen.info.status == "FINISHED"
    history = client.get_metric_history(seen.info.run_id, "loss")
    assert sorted((point.step, point.value) for point in history) == [(k, 1.0 / k) for k in (1, 2, 3, 4)]
    assert len(client.get_metric_history(seen.info.run_id, "system/cpu_utilization_percentage")) == 4
    assert seen.data.params == dict(run.parameters)
    (dataset,) = seen.inputs.dataset_inputs
    assert dataset.dataset.digest == "d" * 36
    assert json.loads(dataset.dataset.profile) == {"num_samples": 12}
    size = (run.folder / "logs" / "mlflow.jsonl").stat().st_size
    MlflowTracker(SQLITE, run).close("FINISHED")  # nothing to say, nothing said
    assert (run.folder / "logs" / "mlflow.jsonl").stat().st_size == size
    artifacts = [item.path for item in client.list_artifacts(seen.info.run_id)]
    assert sorted(artifacts) == ["config.yaml", "samples"]


def test_figures_of_the_whole_run_are_those_of_the_last_attempt(tmp_path: Path) -> None:
    run = tracked(tmp_path / "runs" / "first")
    for step, hours in ((1, 0.5), (2, 1.25)):
        tracker = MlflowTracker(SQLITE, run)
        tracker.log(step, {"loss": 1.0})
        tracker.totals({"castbank.gpu_hours": hours})
        tracker.close("FINISHED")
    size = (run.folder / "logs" / "mlflow.jsonl").stat().st_size
    again = MlflowTracker(SQLITE, run)
    again.totals({"castbank.gpu_hours": 9.0})  # of a start that found the run finished
    again.close("FINISHED")
    assert (run.folder / "logs" / "mlflow.jsonl").stat().st_size == size
    client, seen = the_run(tmp_path / "runs")
    points = client.get_metric_history(seen.info.run_id, "castbank.gpu_hours")
    assert sorted((point.step, point.value) for point in points) == [(1, 0.5), (2, 1.25)]
    assert seen.data.metrics["castbank.gpu_hours"] == 1.25
    assert len(client.get_metric_history(seen.info.run_id, "loss")) == 2


def test_files_that_another_machine_keeps_are_out_of_sight(tmp_path: Path) -> None:
    assert out_of_sight("file:///nowhere/here/mlartifacts/1") == "/nowhere/here/mlartifacts/1"
    for place in ("mlflow-artifacts:/1", "s3://bucket/1", (tmp_path / "a b" / "1").as_uri(), f"{tmp_path}/1"):
        (tmp_path / "a b").mkdir(exist_ok=True)
        assert out_of_sight(place) == ""


def test_a_dead_server_costs_a_bounded_wait_and_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tracked(tmp_path / "runs" / "first")
    config = TrackingConfig(uri=dead_uri(), flush_s=0.1, max_wait_s=0.5)
    tracker = MlflowTracker(config, run)
    for step in range(1, 101):
        tracker.log(step, {"loss": float(step)})
    with caplog.at_level(logging.WARNING, "pipeline"):
        tracker.close("FINISHED")  # returns though nothing was taken
    assert "101 entries wait on disk" in caplog.text
    caplog.clear()
    stopped = MlflowTracker(replace(config, max_wait_s=600, max_wait_stopped_s=0.5), run)
    stopped.close("KILLED")  # a scheduler gives no ten minutes: the test's own limit would end this
    assert "102 entries wait on disk" in caplog.text

    MlflowTracker(SQLITE, run).close("FINISHED")
    client, seen = the_run(tmp_path / "runs")
    history = client.get_metric_history(seen.info.run_id, "loss")
    assert sorted((point.step, point.value) for point in history) == [(k, float(k)) for k in range(1, 101)]


def test_an_attempt_killed_before_it_noted_its_run_does_not_make_a_second_one(tmp_path: Path) -> None:
    run = tracked(tmp_path / "runs" / "first")
    MlflowTracker(SQLITE, run).close("KILLED")
    (run.folder / "mlflow_run_id").unlink()
    changed = replace(run, parameters={**run.parameters, "section.key3": "another", "new": "1"})
    MlflowTracker(SQLITE, changed).close("FINISHED")
    _, seen = the_run(tmp_path / "runs")  # unpacks exactly one
    assert seen.info.status == "FINISHED"
    assert seen.data.params == {**run.parameters, "new": "1"}


def test_a_run_that_was_deleted_is_told_again_from_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tracked(tmp_path / "runs" / "first")
    first = MlflowTracker(SQLITE, run)
    first.log(1, {"loss": 1.0})
    first.close("KILLED")
    client, seen = the_run(tmp_path / "runs")
    client.delete_run(seen.info.run_id)
    again = MlflowTracker(SQLITE, run)
    again.log(2, {"loss": 0.5})
    with caplog.at_level(logging.WARNING, "pipeline"):
        again.close("FINISHED")
    assert f"MLflow run {seen.info.run_id} was deleted" in caplog.text
    client, new = the_run(tmp_path / "runs")  # the only one that is active
    assert new.info.status == "FINISHED"
    history = client.get_metric_history(new.info.run_id, "loss")
    assert sorted((point.step, point.value) for point in history) == [(1, 1.0), (2, 0.5)]


def test_an_export_becomes_one_version_of_a_registered_model(tmp_path: Path) -> None:
    run = tracked(tmp_path / "runs" / "first")
    (run.folder / "export").mkdir()
    (run.folder / "export" / "model.yaml").write_text("family: tiny\n")
    tracker = MlflowTracker(replace(SQLITE, registered_model="cast of cafe"), run)
    tracker.model(run.folder / "export")
    tracker.model(run.folder / "export")  # as after a server that took the first and did not say so
    tracker.close("FINISHED")
    client, seen = the_run(tmp_path / "runs")
    (version,) = client.search_model_versions("name = 'cast of cafe'")
    assert (version.run_id, version.source) == (seen.info.run_id, f"runs:/{seen.info.run_id}/export")
    assert [item.path for item in client.list_artifacts(seen.info.run_id, "export")] == ["export/model.yaml"]


def test_a_line_torn_by_a_crash_is_dropped(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append({"step": 1})
    with (tmp_path / "mlflow.jsonl").open("a") as stream:
        stream.write('{"step": 2')
    again = Spool(tmp_path)
    again.append({"step": 3})
    entries, mark = again.unsent()
    assert [entry["step"] for entry in entries] == [1, 3]
    again.mark(mark)
    assert Spool(tmp_path).unsent() == ([], mark)
    assert again.last("step") == 3
    assert again.last("status") is None


def test_none_tracks_nothing(tmp_path: Path) -> None:
    run = tracked(tmp_path / "run")
    tracker = TRACKERS["none"](TrackingConfig(kind="none"), run)
    tracker.log(1, {"loss": 1.0})
    tracker.artifact(run.folder / "config.yaml", "")
    tracker.close("FINISHED")
    assert [path.name for path in run.folder.iterdir()] == ["config.yaml"]
