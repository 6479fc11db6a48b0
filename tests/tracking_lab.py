"""A real PostgreSQL and a real S3 server on loopback, for tests of tracking; both gone when the test is over.

By hand: ``python -m tests.tracking_lab`` keeps them up until Ctrl-C and prints what a shell needs to use them.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PASSWORD = "pg-secret-6f1c"
KEY_ID, SECRET_KEY = "lab-key-id", "lab-secret-93ab"
BUCKET = "castbank-lab"


@dataclass(frozen=True)
class Lab:
    """Where both are. database: a URI with its password in it; endpoint: of the S3 server, with ``BUCKET`` made."""

    database: str
    endpoint: str

    def environment(self) -> dict[str, str]:
        """What ``env:LAB_STORE``, ``env:LAB_KEY_ID`` and ``env:LAB_SECRET_KEY`` refer to."""
        return {"LAB_STORE": self.database, "LAB_KEY_ID": KEY_ID, "LAB_SECRET_KEY": SECRET_KEY}

    def overrides(self) -> list[str]:
        """Arguments of ``castbank dashboard`` that stand on both; no secret is in them."""
        return [
            "backend=env:LAB_STORE",
            f"artifacts=s3://{BUCKET}/mlflow",
            f"s3.endpoint={self.endpoint}",
            "s3.key_id=env:LAB_KEY_ID",
            "s3.secret_key=env:LAB_SECRET_KEY",
        ]


def missing() -> str:
    """Why the lab cannot be here; empty where it can."""
    if not _programs():
        return "PostgreSQL is not installed (apt-get install postgresql)"
    if os.geteuid() == 0 and not shutil.which("runuser"):
        return "PostgreSQL refuses to run as root, and there is no runuser"
    return ""


@contextmanager
def lab() -> Iterator[Lab]:
    """Both servers, with an empty database and an empty bucket."""
    with postgres() as database, s3() as endpoint:
        yield Lab(database, endpoint)


@contextmanager
def postgres() -> Iterator[str]:
    """The URI of an empty database of a PostgreSQL with a data folder of its own and password logins."""
    programs, port = _programs(), free_port()
    folder = Path(tempfile.mkdtemp(prefix="castbank-postgres-"))  # not pytest's, which only root may enter
    password = folder / "password"
    password.write_text(PASSWORD + "\n", encoding="utf-8")
    if os.geteuid() == 0:
        for path in (folder, password):
            shutil.chown(path, "postgres", "postgres")
    data = folder / "data"
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    try:
        made = ("--username=castbank", "--auth=scram-sha-256", f"--pwfile={password}", "--no-sync")
        _as_postgres([f"{programs}/initdb", "-D", str(data), *made], folder)
        control = [f"{programs}/pg_ctl", "-D", str(data), "-w"]
        _as_postgres([*control, "-l", str(folder / "log"), "-o", options, "start"], folder)
        try:
            yield f"postgresql://castbank:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            _as_postgres([*control, "-m", "immediate", "stop"], folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def s3() -> Iterator[str]:
    """The URL of an S3 server (moto) that holds ``BUCKET``."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        client(endpoint).create_bucket(Bucket=BUCKET)
        yield endpoint
    finally:
        server.stop()
        boto3.DEFAULT_SESSION = None


def client(endpoint: str) -> Any:
    """A boto3 client with the lab's keys."""
    import boto3

    keys = {"aws_access_key_id": KEY_ID, "aws_secret_access_key": SECRET_KEY}
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def _programs() -> str:
    """The folder of PostgreSQL's own programs; empty where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return str(found[-1].parent) if found else str(Path(on_path).parent) if on_path else ""


def _as_postgres(words: Sequence[str], folder: Path) -> None:
    """Run one of its programs, as the user postgres where we are root."""
    before = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*before, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{shlex.join(words)}: {done.stdout}{done.stderr}"


def main() -> None:
    """Keep the lab up until Ctrl-C."""
    with lab() as made:
        for name, value in made.environment().items():
            sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
        sys.stdout.write(f"castbank dashboard {shlex.join(made.overrides())}\n")
        sys.stdout.flush()
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    main()
