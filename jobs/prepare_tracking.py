"""A preparation as a run of MLflow: its configuration, counts, the data set that trainings then name, and pictures.

One run per generation of shards, told after they are published, so that no server can spoil or delay the work:
where it does not answer, a warning is all, and the same command again, which has nothing else to do, tells it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.atomic import write_atomic
from data_prep.config import PrepareConfig
from data_prep.running.commit import WORK
from data_prep.running.stages import Stage
from jobs import config as configs

if TYPE_CHECKING:
    from data_prep.shards import Manifest

LOGGER = logging.getLogger(__name__)
TOLD = "mlflow.json"  # in the output's work folder: which generation has been told, where, as which run
GENERATION_TAG = "castbank.generation"
NUM_SAMPLES, NUM_PEOPLE = 24, 48  # in the report that is uploaded: one page
ARTIFACTS = (
    "config.yaml",
    "ledger.parquet",
    "ledger.html",
    "manifest.json",
    "calibration.json",
    "characters.json",
)


def place(config: PrepareConfig) -> str:
    """The tracking URI."""
    return config.tracking.uri or f"sqlite:///{Path(config.output).resolve().parent / 'mlflow.db'}"


def track(config: PrepareConfig, began_ms: int, stages: Sequence[Stage]) -> str:
    """Tell MLflow of the shards that stand in the output, once, with the time since 1970 at which the work on them
    began and what its stages took; returns a line that says where, or nothing."""
    if config.tracking.kind == "none":
        return ""
    from data_prep.shards.files import read_manifest

    manifest = read_manifest(Path(config.output))
    note = Path(config.output) / WORK / TOLD
    asked = [place(config), config.tracking.experiment]
    if manifest is None or _told(note, manifest.index_sha256, asked):
        return ""
    from mlflow.exceptions import MlflowException

    try:
        run_id = _tell(config, began_ms, stages, manifest)
    except (MlflowException, OSError) as error:
        LOGGER.warning(
            "MLflow at %s: %s; the shards are whole, and the same command again tells it of them",
            place(config),
            str(error).splitlines()[0],
        )
        return ""
    write_atomic(
        note, json.dumps({"generation": manifest.index_sha256, "where": asked, "run": run_id}).encode()
    )
    return f"MLflow: run {run_id} in experiment {config.tracking.experiment!r} at {place(config)}"


def _told(note: Path, generation: str, where: list[str]) -> bool:
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return bool(known["generation"] == generation and known["where"] == where)


def _tell(config: PrepareConfig, began_ms: int, stages: Sequence[Stage], manifest: Manifest) -> str:
    """Make the run, or go on with one that an attempt left unfinished; its id."""
    import mlflow.environment_variables as limits
    from mlflow import MlflowClient

    limits.MLFLOW_HTTP_REQUEST_TIMEOUT.set(5)  # the defaults block for four minutes on a dead server
    limits.MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(1)
    client = MlflowClient(place(config))
    run_id = _run(client, config, began_ms, manifest.index_sha256)
    _describe(client, run_id, config, manifest)
    seconds = {f"seconds/{stage.name}": stage.seconds for stage in stages}
    busy = {f"workers_busy/{one.name}": one.occupancy for one in stages if one.occupancy is not None}
    _log_metrics(client, run_id, figures(manifest) | seconds | busy)
    with tempfile.TemporaryDirectory() as aside:
        _draw(Path(config.output), Path(aside))
        client.log_artifacts(run_id, aside)
    client.set_terminated(run_id, "FINISHED")
    return run_id


def _run(client: Any, config: PrepareConfig, began_ms: int, generation: str) -> str:
    output = Path(config.output).resolve()
    found = client.get_experiment_by_name(config.tracking.experiment)
    if found is None:
        files = None if config.tracking.uri else (output.parent / "mlartifacts").as_uri()
        experiment = client.create_experiment(config.tracking.experiment, files)
    else:
        experiment = found.experiment_id
    name = f"{generation[:32]}-{hashlib.sha256(str(output).encode()).hexdigest()[:8]}"
    runs = client.search_runs([experiment], f"tags.`{GENERATION_TAG}` = '{name}'", max_results=1)
    if runs:
        return str(runs[0].info.run_id)
    tags = {
        GENERATION_TAG: name,
        "castbank.verb": "prepare",
        "castbank.shards": str(output),
        "castbank.host": socket.gethostname(),
    }
    made = client.create_run(experiment, start_time=began_ms, tags=tags, run_name=output.name)
    return str(made.info.run_id)


def figures(manifest: Manifest) -> dict[str, float]:
    """The manifest's numbers as metrics: counts, error rates of identities, what was left out by rule."""
    facts = manifest.facts
    found = {name: float(value) for name, value in facts.items() if isinstance(value, int | float)}
    found |= {
        "num_shards": float(len(manifest.shards)),
        "num_bytes": float(sum(shard.num_bytes for shard in manifest.shards)),
    }
    for name, value in facts.get("calibration", {}).items():
        if isinstance(value, int | float):
            found[f"identities/{name}"] = float(value)
    for rule, count in facts.get("lost_by_rule", {}).items():
        found[f"left_out/{rule.replace(': ', '/')}"] = float(count)
    return found


def _describe(client: Any, run_id: str, config: PrepareConfig, manifest: Manifest) -> None:
    """Parameters, and the shards as the same data set that a training on them names; safe to repeat."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    known = client.get_run(run_id).data.params
    parameters = [Param(k, v[:6000]) for k, v in configs.flat(config).items() if k not in known]
    client.log_batch(run_id, params=parameters)
    output = Path(config.output).resolve()
    counts = {key: value for key, value in manifest.facts.items() if isinstance(value, int | float | str)}
    dataset = Dataset(
        name=output.name,
        digest=manifest.index_sha256[:36],
        source_type="local",
        source=json.dumps({"uri": str(output)}),
        profile=json.dumps({**counts, "num_samples": manifest.num_samples}),
    )
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "preparation")])])


def _log_metrics(client: Any, run_id: str, figures_by_name: Mapping[str, float]) -> None:
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    client.log_batch(
        run_id, metrics=[Metric(name, value, now_ms, 0) for name, value in figures_by_name.items()]
    )


def _draw(output: Path, aside: Path) -> None:
    """What is looked at: plots, one page of the report, and the tables behind them."""
    from data_prep.report import write_report
    from data_prep.report.plots import save_plots

    save_plots(output, aside / "plots")
    write_report(output, aside / "report.html", lambda *_: None, NUM_SAMPLES, NUM_PEOPLE)
    for name in ARTIFACTS:
        if (output / name).is_file():
            shutil.copyfile(output / name, aside / name)
