"""One S3 server for all tests of the room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.s3_lab import S3Lab, s3_lab


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Lab]:
    pytest.importorskip("moto")
    with s3_lab() as made:
        yield made


@pytest.fixture
def s3(s3_server: S3Lab) -> Iterator[S3Lab]:
    """The server, faultless at first and afterwards."""
    s3_server.faults.every = s3_server.faults.num_calls = s3_server.faults.num_failed = 0
    yield s3_server
    s3_server.faults.every = 0
