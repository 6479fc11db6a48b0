"""An evaluation as a run of MLflow: figures as metrics, page, matrices and numbers as files, below the training
that made the videos.

One run per output folder and content, told after everything is written, so that no server can spoil or delay it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import shlex
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.records import InputError, Json
from jobs.evaluate_looks import FOLDER
from jobs.evaluate_videos import note_of

LOGGER = logging.getLogger(__name__)
CONTENT_TAG = "castbank.evaluation"
FILES = ("evaluation.html", "evaluation.json")
MOST_MATRICES = 100  # pictures that are uploaded, the first of them
MOST_STRIPS_BYTES = 50_000_000  # of frames beside the page; more stay where they are


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that send an evaluation to MLflow."""
    group = parser.add_argument_group("MLflow")
    group.add_argument(
        "--track",
        metavar="URI",
        help="send figures, page and matrices there: http://HOST:5000, or sqlite:///runs/mlflow.db",
    )
    group.add_argument("--experiment", default="castbank", metavar="NAME", help="of MLflow (castbank)")


def track(args: argparse.Namespace, content: Json, videos: Sequence[Path]) -> None:
    """Tell MLflow, where --track asks for it; a server that does not answer costs a warning."""
    if not args.track:
        return
    from mlflow.exceptions import MlflowException

    try:
        run_id = _tell(args, content, videos)
    except MlflowException as error:
        why = str(error).strip().splitlines()[0]
        if "://" not in args.track or "UnsupportedModelRegistry" in type(error).__name__:
            raise InputError(
                f"--track: {args.track!r}: {why}; give http://HOST:PORT or sqlite:///FILE"
            ) from error
        LOGGER.warning(
            "MLflow at %s: %s; the evaluation is whole, the same command tells it later", args.track, why
        )
        return
    sys.stdout.write(f"MLflow: run {run_id} in experiment {args.experiment!r} at {args.track}\n")


def _tell(args: argparse.Namespace, content: Json, videos: Sequence[Path]) -> str:
    """Make the run, or go on with one that an attempt left unfinished; its id."""
    import mlflow.environment_variables as limits
    from mlflow import MlflowClient

    limits.MLFLOW_HTTP_REQUEST_TIMEOUT.set(5)  # the defaults block for four minutes on a dead server
    limits.MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(1)
    client = MlflowClient(args.track)
    experiment = _experiment(client, args)
    parent = _made_by(client, experiment, videos)
    run_id = _run(client, experiment, args.output, content, parent)
    _log(client, run_id, args, content, videos)
    client.set_terminated(run_id, "FINISHED")
    return run_id


def _experiment(client: Any, args: argparse.Namespace) -> str:
    found = client.get_experiment_by_name(args.experiment)
    if found is not None:
        return str(found.experiment_id)
    beside = args.output.resolve().parent / "mlartifacts"
    files = None if args.track.startswith("http") else beside.as_uri()
    return str(client.create_experiment(args.experiment, files))


def _made_by(client: Any, experiment: str, videos: Sequence[Path]) -> str:
    """The MLflow run of the training that made all the videos, by the folder that their notes name or that they lie
    in; empty where there is none, or several."""
    folders = {folder for video in videos if (folder := _training_of(video)) is not None}
    if len(folders) != 1:
        return ""
    from pipeline.tracking.mlflow_tracker import RUN_TAG

    try:
        known = json.loads((folders.pop() / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    name = str(known.get("id", "")) if isinstance(known, dict) else ""
    if not name or "'" in name:
        return ""
    runs = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{name}'", max_results=1)
    return str(runs[0].info.run_id) if runs else ""


def _training_of(video: Path) -> Path | None:
    """The run's folder: RUN/samples/x.mp4, or the RUN of the command in the note beside the video."""
    if (video.resolve().parent.parent / "run.json").is_file():
        return video.resolve().parent.parent
    command = note_of(video).get("command")
    words = shlex.split(command) if isinstance(command, str) else []
    folder = Path(words[2]) if len(words) > 2 and words[1] == "generate" else None
    return folder.resolve() if folder is not None and (folder / "run.json").is_file() else None


def _run(client: Any, experiment: str, output: Path, content: Json, parent: str) -> str:
    digest = hashlib.sha256(json.dumps([str(output.resolve()), content], sort_keys=True).encode())
    name = digest.hexdigest()[:32]
    runs = client.search_runs([experiment], f"tags.`{CONTENT_TAG}` = '{name}'", max_results=1)
    if runs:
        return str(runs[0].info.run_id)
    tags = {CONTENT_TAG: name, "castbank.verb": "evaluate", "castbank.host": socket.gethostname()}
    if parent:
        tags["mlflow.parentRunId"] = parent
    made = client.create_run(experiment, tags=tags, run_name=f"evaluation {output.resolve().name}")
    return str(made.info.run_id)


def metrics_of(content: Json) -> dict[str, float]:
    """Means over videos, their bounds where there are some as NAME.low and NAME.high, and what is of all together;
    names as MLflow takes them."""
    found: dict[str, float | None] = {}
    for name, one in content["figures"].items():
        found |= {name: one["mean"], f"{name}.low": one["low"], f"{name}.high": one["high"]}
    found |= dict(content.get("whole", {}))
    found |= {
        f"episode/{name}": value for name, value in (content.get("episode") or {}).get("figures", {}).items()
    }
    kept = {name: value for name, value in found.items() if value is not None}
    return {"".join(c if c.isalnum() or c in "_-./ " else "_" for c in name): v for name, v in kept.items()}


def _log(client: Any, run_id: str, args: argparse.Namespace, content: Json, videos: Sequence[Path]) -> None:
    from mlflow.entities import Metric, Param

    now_ms = int(time.time() * 1000)
    metrics = [Metric(name, value, now_ms, 0) for name, value in metrics_of(content).items()]
    known = client.get_run(run_id).data.params
    parameters = [Param(k, v[:6000]) for k, v in _parameters(args, content, videos).items() if k not in known]
    client.log_batch(run_id, metrics=metrics, params=parameters)
    for name in FILES:
        client.log_artifact(run_id, str(args.output / name))
    for picture in sorted(args.output.glob("[0-9]*-*.png"))[:MOST_MATRICES]:
        client.log_artifact(run_id, str(picture), "matrices")
    strips = args.output / FOLDER
    if sum(path.stat().st_size for path in strips.glob("*.jpg")) <= MOST_STRIPS_BYTES:
        client.log_artifacts(run_id, str(strips), FOLDER)


def _parameters(args: argparse.Namespace, content: Json, videos: Sequence[Path]) -> Mapping[str, str]:
    cast = sorted({name for row in content["videos"] for name in row["cast"]})
    return {
        "num_videos": str(len(videos)),
        "cast": ", ".join(cast),
        "references": str(args.references or ""),
        "every": str(args.every),
        "clip": args.clip,
        "fid": args.fid,
        "fvd": args.fvd,
        "output": str(args.output.resolve()),
    }
