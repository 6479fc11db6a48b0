"""A real S3 server (moto's) on a loopback port, which fails as it is told: every n-th call, in several ways."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.tracking_lab import BUCKET, KEY_ID, SECRET_KEY, client

Start = Callable[..., Any]
Fault = Literal["503 Slow Down", "500 Internal Server Error", "cut off"]


@dataclass
class Faults:
    """every: each n-th call of S3 fails in this way, 0 for none; counts of what came."""

    every: int = 0
    kind: Fault = "503 Slow Down"
    num_calls: int = 0
    num_failed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next_fails(self) -> bool:
        with self.lock:
            self.num_calls += 1
            failed = bool(self.every) and self.num_calls % self.every == 0
            self.num_failed += failed
            return failed


@dataclass(frozen=True)
class S3Lab:
    """endpoint: the server's URL; faults: how it behaves, to be changed while it runs."""

    endpoint: str
    faults: Faults

    def put(self, folder: Path, prefix: str) -> str:
        """Upload a folder; returns its URL."""
        boto = client(self.endpoint)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                boto.put_object(
                    Bucket=BUCKET, Key=f"{prefix}/{path.relative_to(folder)}", Body=path.read_bytes()
                )
        return f"s3://{BUCKET}/{prefix}"

    def remove(self, url: str) -> None:
        client(self.endpoint).delete_object(Bucket=BUCKET, Key=url.removeprefix(f"s3://{BUCKET}/"))


@contextmanager
def s3_lab() -> Iterator[S3Lab]:
    """The server with an empty bucket, and the environment that leads to it, for processes started too."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Silent(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: Any) -> None:
            """Nobody reads it."""

    faults = Faults()
    application = _failing(DomainDispatcherApplication(create_backend_app), faults)
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Silent)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        client(endpoint).create_bucket(Bucket=BUCKET)
        faults.num_calls = 0
        try:
            yield S3Lab(endpoint, faults)
        finally:
            faults.every = 0
            server.shutdown()
            thread.join()


def _failing(application: Any, faults: Faults) -> Callable[[dict[str, Any], Start], Iterable[bytes]]:
    def answer(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        if not faults.next_fails():
            return application(environ, start)  # type: ignore[no-any-return]
        if faults.kind == "cut off" and environ["REQUEST_METHOD"] == "GET":
            return (part[: len(part) // 2] for part in application(environ, start))
        start("503 Slow Down" if faults.kind == "cut off" else faults.kind, [("Content-Length", "0")])
        return [b""]

    return answer
