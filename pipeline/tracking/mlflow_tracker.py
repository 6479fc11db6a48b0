"""MLflow as a tracker that never makes training wait.

What is to be seen is appended to a file first; a thread sends it in batches, tries again while the server is
away, and marks how far it came, so that a later start sends the rest. (With its defaults, one ``log_metric`` to a
dead server blocks for 247 s and then raises, and MLflow's own asynchronous logging loses the data.)
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from data_prep.records import Json
from pipeline.config import TrackingConfig
from pipeline.tracking.spool import Spool
from pipeline.tracking.tracker import Status, TrackedRun
from pipeline.training.checkpoints import write_text

LOGGER = logging.getLogger(__name__)
RUN_TAG = "castbank.run"
RUN_ID = "mlflow_run_id"
MAX_METRICS = 1000  # MLflow's limit for one batch
MAX_PARAMS = 100


class MlflowTracker:
    """An MLflow run, fed from a spool by a thread of its own; a resumed training goes on in the same run."""

    def __init__(self, config: TrackingConfig, run: TrackedRun) -> None:
        self._config = config
        self._spool = Spool(run.folder / "logs")
        self._last_step = self._spool.last("step") or 0
        self._sender = Sender(config, run, self._spool)
        self._started = False
        self._thread = threading.Thread(target=self._sender.work, name="mlflow", daemon=True)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """See Tracker; gauges of the machine are added, under the names of MLflow's system tab."""
        if step > self._last_step:
            self._last_step = step
            values = {name: value for name, value in scalars.items() if name != "step"}
            self._append({"metrics": values | machine_gauges(), "step": step})

    def artifact(self, path: Path, folder: str) -> None:
        """See Tracker."""
        self._append({"artifact": str(path.resolve()), "folder": folder})

    def model(self, folder: Path) -> None:
        """See Tracker."""
        if self._config.registered_model:
            self._append({"model": self._config.registered_model, "export": str(folder.resolve())})

    def totals(self, scalars: Mapping[str, float]) -> None:
        """See Tracker; where this process had nothing to say, a finished run is not opened again for them."""
        if self._started:
            self._append({"metrics": dict(scalars), "step": self._last_step})

    def close(self, status: Status) -> None:
        """See Tracker; what a dead server has not taken stays in the spool and is sent by the next start."""
        if not self._started and self._spool.last("status") == status and not self._spool.unsent()[0]:
            return  # all of it has been sent before
        self._append({"status": status})
        self._sender.closing.set()
        config = self._config
        self._thread.join(config.max_wait_stopped_s if status == "KILLED" else config.max_wait_s)
        self._sender.given_up.set()
        waiting = len(self._spool.unsent()[0])
        if waiting:
            LOGGER.warning("MLflow at %s does not answer; %d entries wait on disk", self._sender.uri, waiting)

    def _append(self, entry: Json) -> None:
        self._spool.append(entry | {"time_ms": int(time.time() * 1000)})
        if not self._started:  # not before: a launcher forks its loading processes first
            self._started = True
            self._thread.start()


class Sender:
    """The thread's side: makes or finds the MLflow run, then sends the spool until told to close."""

    def __init__(self, config: TrackingConfig, run: TrackedRun, spool: Spool) -> None:
        self._config, self._run, self._spool = config, run, spool
        self.uri = config.uri or f"sqlite:///{run.folder.resolve().parent / 'mlflow.db'}"
        self.closing, self.given_up = threading.Event(), threading.Event()
        self._warned = False
        self._client: Any = None
        self._run_id = ""

    def work(self) -> None:
        """Runs until the spool is empty and ``closing`` is set, or until ``given_up`` is."""
        while not self.given_up.is_set():
            closing = self.closing.is_set()
            if self._deliver() and closing:
                return
            pause = self.given_up if closing else self.closing
            pause.wait(self._config.flush_s)

    def _deliver(self) -> bool:
        """Send what there is; False where the server did not take it, which is said once."""
        from mlflow.exceptions import MlflowException

        try:
            self._connect()
            self._send()
        except (MlflowException, OSError) as error:
            if not self._warned:
                LOGGER.warning("MLflow at %s: %s; trying again", self.uri, str(error).splitlines()[0])
            self._warned = True
            self._run_id = ""  # it may be the run that is not there any more: look again
            return False
        return True

    def _connect(self) -> None:
        if self._run_id:
            return
        import mlflow.environment_variables as limits
        from mlflow import MlflowClient

        limits.MLFLOW_HTTP_REQUEST_TIMEOUT.set(5)  # the defaults block for four minutes on a dead server
        limits.MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(1)
        self._client = self._client or MlflowClient(self.uri)
        known = self._run.folder / RUN_ID
        run_id = known.read_text().strip() if known.is_file() else ""
        if run_id and not is_active(self._client, run_id):
            LOGGER.warning("MLflow run %s was deleted; all that is known goes to a new one", run_id)
            self._spool.rewind()
            run_id = ""
        if run_id:
            self._client.update_run(run_id, status="RUNNING")
        else:
            run_id = self._find_or_create()
            describe(self._client, run_id, self._run)
            write_text(known, run_id)
        self._run_id = run_id

    def _find_or_create(self) -> str:
        """The run of this folder, which an attempt that was killed may have created before it noted its id."""
        name = self._config.experiment
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name, self._artifacts())
        if found and self._config.uri and (place := out_of_sight(found.artifact_location)):
            LOGGER.warning(
                "experiment %r keeps its files in %s, which is not on this machine; they will not be seen: give "
                "another tracking.experiment, which the server at %s then keeps itself",
                name,
                place,
                self.uri,
            )
        runs = self._client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{self._run.id}'", max_results=1)
        if runs:
            return str(runs[0].info.run_id)
        tags = {**self._run.tags, RUN_TAG: self._run.id}
        return str(self._client.create_run(experiment, tags=tags, run_name=self._run.folder.name).info.run_id)

    def _artifacts(self) -> str | None:
        """Beside a store that is a file of ours; a server knows its own place."""
        return None if self._config.uri else (self._run.folder.resolve().parent / "mlartifacts").as_uri()

    def _send(self) -> None:
        entries, mark = self._spool.unsent()
        if not entries:
            return
        for metrics in batches(list(all_metrics(entries)), MAX_METRICS):
            self._client.log_batch(self._run_id, metrics=metrics)
        for entry in entries:
            if "artifact" in entry and Path(entry["artifact"]).is_file():
                self._client.log_artifact(self._run_id, entry["artifact"], entry["folder"])
            if "model" in entry:
                register(self._client, self._run_id, entry["model"], Path(entry["export"]))
        statuses = [entry["status"] for entry in entries if "status" in entry]
        if statuses:
            self._client.set_terminated(self._run_id, statuses[-1])
        self._spool.mark(mark)


def is_active(client: Any, run_id: str) -> bool:
    """Whether a run is there and not deleted."""
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def register(client: Any, run_id: str, name: str, export: Path) -> None:
    """Upload an export and make it the newest version of a registered model; safe to repeat."""
    from mlflow.exceptions import MlflowException

    if not export.is_dir() or client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'"):
        return
    client.log_artifacts(run_id, str(export), "export")
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    client.create_model_version(name, source=f"runs:/{run_id}/export", run_id=run_id)


def out_of_sight(location: str) -> str:
    """The folder of files of an experiment that was made by runs on another machine; empty for any other place.

    MLflow's client writes to such a folder itself, wherever it runs, and makes it where it is missing.
    """
    folder = Path(unquote(urlparse(location).path))
    return str(folder) if location.startswith(("file:", "/")) and not folder.parent.is_dir() else ""


def describe(client: Any, run_id: str, run: TrackedRun) -> None:
    """Log parameters, the resolved configuration and the data set; safe to repeat."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    known = client.get_run(run_id).data.params  # of an attempt that was killed here; MLflow refuses changes
    parameters = [Param(key, value[:6000]) for key, value in run.parameters.items() if key not in known]
    for some in batches(parameters, MAX_PARAMS):
        client.log_batch(run_id, params=some)
    client.log_artifact(run_id, str(run.folder / "config.yaml"))
    dataset = Dataset(
        name=run.dataset.name,
        digest=run.dataset_digest,
        source_type="local",
        source=json.dumps({"uri": str(run.dataset.resolve())}),
        profile=json.dumps(run.profile),
    )
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def all_metrics(entries: list[Json]) -> Iterator[Any]:
    """MLflow metrics of spool entries."""
    from mlflow.entities import Metric

    for entry in entries:
        for name, value in entry.get("metrics", {}).items():
            yield Metric(name, value, entry["time_ms"], entry["step"])


def batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    """Consecutive lists of at most ``size`` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def machine_gauges() -> dict[str, float]:
    """Load of this machine; the names put it on MLflow's system page."""
    import psutil

    memory = psutil.virtual_memory()
    gauges = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / 1e6,
        "system/system_memory_usage_percentage": memory.percent,
    }
    return gauges
