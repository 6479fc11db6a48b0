"""``castbank dashboard``: an MLflow server over one machine's runs, or over a team's in a database and a bucket."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from data_prep.records import InputError
from jobs import config as configs
from jobs import knobs
from jobs.dashboard_stores import Keys, check_bucket, check_database, referenced
from jobs.outputs import check_folder

SUMMARY = """Show every run in the browser: an MLflow server in the foreground, until Ctrl-C.

Without arguments it opens the store that training writes when tracking.uri is empty. With backend=env:NAME and
artifacts=s3://BUCKET it serves a team: give its URL to training as tracking.uri. What it stands on is tried before
it starts; exit code 2 where that fails."""

EXAMPLE = (
    "castbank dashboard backend=env:MLFLOW_STORE artifacts=s3://faces/mlflow s3.endpoint=http://minio:9000"
)
LOOPBACK = ("127.0.0.1", "localhost", "::1")
RANGES = {"port": (1, 65535), "workers": (1, 64), "start_s": (1, 3600)}
POLL_S, STOP_S, TAIL_LINES = 0.2, 15.0, 15  # STOP_S: beyond what jobs.dashboard_server takes to end


@dataclass(frozen=True)
class S3Config:
    """How a bucket is reached; what is empty is found as boto3 finds it: AWS_* variables, a profile, a role."""

    endpoint: str = ""  # URL of a store that is not Amazon's, for example http://minio:9000
    key_id: str = ""  # where the access key's id is found: env:NAME or file:PATH
    secret_key: str = ""  # where the secret key is found: env:NAME or file:PATH


@dataclass(frozen=True)
class DashboardConfig:
    """castbank dashboard: where runs are kept, and where they are shown."""

    backend: str = (
        "sqlite:///runs/mlflow.db"  # sqlite:///FILE; or env:NAME, file:PATH: where the URI of a database is
        # found, which holds a password: postgresql://USER:PASSWORD@HOST:PORT/NAME
    )
    artifacts: str = ""  # s3://BUCKET/PREFIX or a folder; empty: mlartifacts beside the sqlite file
    s3: S3Config = field(default_factory=S3Config)
    host: str = "127.0.0.1"  # address to listen on; 0.0.0.0 is every one of this machine
    port: int = 5000
    allow_remote: bool = False  # consent to a host other than this machine: MLflow asks nobody for a password
    names: str = ""  # further names it is reached by, such as a proxy's; comma-separated, else it answers 403
    workers: int = 2  # server processes; each holds about 0.4 GiB
    start_s: float = 180.0  # longest wait for its first answer; a new database is filled with tables first
    log: str = "runs/dashboard.log"  # what the server itself says


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    knobs.add_arguments(parser, DashboardConfig, EXAMPLE)


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted, which is the way to end it: 0; 1 where the server ended by itself."""
    config = configs.load(DashboardConfig, args.config, args.overrides)
    check(config)
    environment, store = prepared(config)
    Path(config.log).parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.write(f"castbank dashboard: {store}\ncastbank dashboard: starting, which takes 10 to 30 s\n")
    with Path(config.log).open("wb") as log:
        server = start(config, environment, log.fileno())
    try:
        if not answers(server, config):
            return ended(server, config)
        sys.stdout.write(f"open {url(config)}\ntrain with tracking.uri={url(config)}\nCtrl-C ends it\n")
        sys.stdout.flush()
        server.wait()
        return ended(server, config)
    except KeyboardInterrupt:  # Ctrl-C or SIGTERM
        sys.stderr.write("\ncastbank dashboard: ended\n")
        return 0
    finally:
        stop(server)


def check(config: DashboardConfig) -> None:
    """Raise InputError for what cannot work, or what nobody should do unawares."""
    configs.check_ranges(config, RANGES)
    if config.host not in LOOPBACK and not config.allow_remote:
        raise InputError(
            f"host={config.host}: whoever reaches this machine could read, change and delete every run and "
            "picture, as this server has no passwords; give allow_remote=true in a network that is trusted, or "
            f"leave host and come through ssh -N -L {config.port}:127.0.0.1:{config.port} {socket.gethostname()}"
        )
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family) as asked:
        asked.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as the server does: old connections may linger
        try:
            asked.bind((config.host, config.port))
        except OSError as error:
            raise InputError(
                f"host={config.host} port={config.port} cannot be listened on ({error.strerror}); use or "
                "end an earlier dashboard, or give another port="
            ) from error


def prepared(config: DashboardConfig) -> tuple[dict[str, str], str]:
    """The environment that the server is to be given beyond ours, secrets in it, and its stores in words.

    Raises:
        InputError: a store cannot be used.
    """
    keys = Keys(*(referenced(f"s3.{n}", v) if v else "" for n, v in s3_references(config)))
    if config.backend.startswith("sqlite:///"):
        file = Path(config.backend.removeprefix("sqlite:///")).absolute()
        check_folder("backend", file.parent)
        file.parent.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{file}"
        artifacts = config.artifacts or str(file.parent / "mlartifacts")
    else:
        uri = referenced("backend", config.backend)
        artifacts = config.artifacts
    if not artifacts:
        raise InputError(
            "artifacts: no value; beside a database give artifacts=s3://BUCKET/PREFIX or a folder"
        )
    shown = check_database("backend", uri)
    if "://" in artifacts:
        check_bucket("artifacts", artifacts, config.s3.endpoint, keys)
    else:
        artifacts = str(Path(artifacts).absolute())
        check_folder("artifacts", Path(artifacts))
    check_folder("log", Path(config.log).parent)
    environment = {
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_ARTIFACTS_DESTINATION": artifacts,
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(allowed_hosts(config)),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its language-model judges, which cost 10 s of the start
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_S3_ENDPOINT_URL": config.s3.endpoint,
        "AWS_ACCESS_KEY_ID": keys.key_id,
        "AWS_SECRET_ACCESS_KEY": keys.secret_key,
    }
    return {
        name: value for name, value in environment.items() if value
    }, f"runs in {shown}, files in {artifacts}"


def s3_references(config: DashboardConfig) -> tuple[tuple[str, str], tuple[str, str]]:
    """Both keys, or neither, as (knob, reference).

    Raises:
        InputError: one of them alone.
    """
    pairs = ("key_id", config.s3.key_id), ("secret_key", config.s3.secret_key)
    if bool(config.s3.key_id) != bool(config.s3.secret_key):
        missing = next(name for name, value in pairs if not value)
        raise InputError(
            f"s3.{missing}: no value; s3.key_id and s3.secret_key are given together or not at all"
        )
    return pairs


def allowed_hosts(config: DashboardConfig) -> list[str]:
    """Host headers to answer: a web page of somebody else must not reach the server under a name of its own."""
    names = {"localhost", "127.0.0.1", "[::1]"}
    if config.host not in LOOPBACK:
        names |= {config.host, socket.gethostname(), socket.getfqdn(), *addresses()}
    names |= {name.strip() for name in config.names.split(",") if name.strip()}
    return sorted(f"{name}{port}" for name in names for port in ("", ":*"))


def addresses() -> set[str]:
    """Addresses of this machine, as far as it knows them by its own name."""
    try:
        found = socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
    except OSError:
        return set()
    return {str(entry[4][0]) for entry in found}


def start(config: DashboardConfig, environment: Mapping[str, str], log: int) -> subprocess.Popen[bytes]:
    """The server as a group of processes that ends with this one. Its words hold nothing secret."""
    where = ("--host", config.host, "--port", str(config.port), "--workers", str(config.workers))
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.dashboard_server", *where],
        stdin=subprocess.PIPE,  # its end is ours
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
        start_new_session=True,  # Ctrl-C comes to us alone
    )


def answers(server: subprocess.Popen[bytes], config: DashboardConfig) -> bool:
    """Wait for the first answer; False where the server has ended, or does not answer in time."""
    until_s = time.monotonic() + config.start_s
    direct = build_opener(ProxyHandler({}))  # a proxy does not reach this machine's own address
    while server.poll() is None and time.monotonic() < until_s:
        try:
            direct.open(f"{url(config, here=True)}/health", timeout=5).close()
        except (OSError, HTTPException):
            time.sleep(POLL_S)
        else:
            return server.poll() is None
    return False


def ended(server: subprocess.Popen[bytes], config: DashboardConfig) -> int:
    """Say how a server ended that nobody asked to, with its last words."""
    code = server.poll()
    how = (
        f"ended with {code}" if code is not None else f"has not answered within start_s={config.start_s:g} s"
    )
    tail = Path(config.log).read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
    sys.stderr.write("\n".join([*tail, f"castbank dashboard: the server {how}; its log is {config.log}", ""]))
    return 1


def stop(server: subprocess.Popen[bytes]) -> None:
    """End the server and what it started, also where it has ended by itself and left some of that."""
    assert server.stdin is not None
    server.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def url(config: DashboardConfig, here: bool = False) -> str:
    """Where the server is found from elsewhere, or from this machine."""
    everywhere = config.host in ("0.0.0.0", "::")
    host = ("127.0.0.1" if here else socket.getfqdn()) if everywhere else config.host
    return f"http://{f'[{host}]' if ':' in host else host}:{config.port}"
