"""What ``castbank doctor`` tries of the places where results are kept and seen: MLflow's store, and a bucket."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlparse

from cluster.checks.finding import Finding, Findings
from cluster.checks.probe import no_answer
from data_prep.records import InputError
from jobs.dashboard_stores import Keys, check_bucket
from jobs.outputs import unwritable


def check_tracking(uri: str, elsewhere: bool = False) -> Findings:
    """The MLflow store can be reached: a server answers, the folder of a sqlite file can be written.

    Args:
        uri: as in tracking.uri.
        elsewhere: jobs run on other machines than this.
    """
    parts = urlparse(uri)
    if parts.scheme in ("http", "https"):
        problem = no_answer(health(uri))
        remedy = "start the server (castbank dashboard) or correct tracking.uri"
    elif not uri:
        problem, remedy = "", ""
    elif parts.scheme == "sqlite":
        file = Path(parts.path.removeprefix("/"))  # sqlite:///relative, sqlite:////absolute
        problem, remedy = unwritable(file.parent), "correct tracking.uri: sqlite:///FILE or sqlite:////FILE"
    else:
        seen = f"{uri}: not checked"
        yield Finding("mlflow", "warning", seen, "http(s):// and sqlite:/// are checked here")
        return
    if problem:
        yield Finding("mlflow", "broken", f"{uri}: {problem}", remedy)
    elif elsewhere and not health(uri):
        seen = "a sqlite file, which several nodes would write through a network file system and may damage"
        yield Finding("mlflow", "warning", seen, "start castbank dashboard and give tracking.uri=http://…")
    else:
        yield Finding("mlflow", "ok", uri or "sqlite store beside the runs")


def health(uri: str) -> str:
    """What a server at ``uri`` answers when it is well; empty where the store is no server."""
    return uri.rstrip("/") + "/health" if uri.startswith(("http://", "https://")) else ""


def check_s3(bucket: str, endpoint: str) -> Findings:
    """A small object can be put into a bucket, read and deleted, with the keys that boto3 finds."""
    try:
        check_bucket("bucket", bucket, endpoint, Keys())
    except InputError as error:
        seen, _, remedy = str(error).removeprefix("bucket: ").rpartition("; ")
        yield Finding("bucket", "broken", seen or remedy, remedy if seen else "")
    else:
        yield Finding("bucket", "ok", f"{bucket}: an object was put, read and deleted")
