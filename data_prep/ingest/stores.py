"""The file system behind a URL's scheme, as fsspec has it, with patience for faults.

S3 and Google's store are read by obstore (one wheel, Rust's object_store, its fsspec class): s3fs pins botocore to
versions that boto3 has left behind, and this one asks again for each single request, of a listing too. Credentials
come from where each store's own tools take them, never from a configuration.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

from data_prep.config import IngestConfig
from data_prep.records import InputError

T = TypeVar("T")

OBJECT_STORES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
LONGEST_WAIT_S = 30.0  # between two attempts
_REFUSED = re.compile(r"status code: (?!408|429)4\d\d")  # by a server that would refuse again
_FINAL = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError, NotImplementedError)


class StorageError(InputError):
    """A store does not give what is asked of it; the message names the place, what it said and what to do."""


@lru_cache(maxsize=32)
def filesystem(protocol: str, limits: IngestConfig) -> Any:
    """An fsspec file system. Raises StorageError for a scheme that nothing here can read."""
    import fsspec

    if protocol in OBJECT_STORES:
        return _object_store(OBJECT_STORES[protocol], limits)
    try:
        return fsspec.filesystem(protocol)
    except ValueError as error:
        raise StorageError(
            f"{protocol}://…: no store of this kind is known; allowed are a path, s3://, gs://, hf://, memory:// "
            "and what else fsspec reads"
        ) from error
    except ImportError as error:
        raise StorageError(f"{protocol}://…: {error}; install it and try again") from error


def inside(system: Any, place: str) -> str:
    """What a URL's file system calls the place. A bucket's keys may hold any character, also ``?`` and ``#``."""
    protocol, _, key = place.partition("://")
    return (key if protocol.lower() in OBJECT_STORES else str(system._strip_protocol(place))).rstrip("/")


def _object_store(protocol: str, limits: IngestConfig) -> Any:
    from obstore.fsspec import FsspecStore

    settings: dict[str, Any] = {}
    provider = None
    if protocol == "s3":
        settings, provider = s3_settings(limits)
    made: Any = FsspecStore  # typed by literal names of stores
    return made(
        protocol,
        config=settings or None,
        client_options={"allow_http": True, "timeout": f"{limits.timeout_s:g}s"},
        retry_config={
            "max_retries": limits.max_attempts - 1,
            "backoff": {
                "init_backoff": timedelta(seconds=limits.backoff_s),
                "max_backoff": timedelta(seconds=LONGEST_WAIT_S),
                "base": 2,
            },
            "retry_timeout": timedelta(seconds=limits.timeout_s * limits.max_attempts),
        },
        credential_provider=provider,
    )


def s3_settings(limits: IngestConfig) -> tuple[dict[str, Any], Any]:
    """Endpoint, region and credentials. boto3, where it is installed, knows profiles and single sign-on beside the
    variables; where even it finds no credentials the bucket is taken for a public one."""
    settings: dict[str, Any] = {"endpoint": limits.endpoint} if limits.endpoint else {}
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        return settings, None
    session = boto3.Session()
    if session.region_name:
        settings["region"] = session.region_name
    if session.get_credentials() is None:
        return {**settings, "skip_signature": True}, None
    return settings, Boto3CredentialProvider(session)


def patiently(place: str, work: Callable[[], T], limits: IngestConfig) -> T:
    """What ``work`` returns, tried again after faults that may pass, each time after twice the wait.

    Raises:
        FileNotFoundError: there is nothing at ``place``; not tried again.
        StorageError: it is refused, or failed ``ingest.max_attempts`` times.
    """
    for attempt in range(1, limits.max_attempts + 1):
        try:
            return work()
        except FileNotFoundError:
            raise
        except StorageError:
            raise
        except Exception as error:
            if _is_final(error):
                raise StorageError(
                    f"{place}: refused ({_said(error)}); check the name, and the credentials that this machine "
                    "uses for it"
                ) from error
            if attempt == limits.max_attempts:
                raise StorageError(
                    f"{place}: {attempt} attempts failed, the last with: {_said(error)}; when the store is well "
                    "again run the same command, or raise ingest.max_attempts or ingest.backoff_s"
                ) from error
        time.sleep(min(limits.backoff_s * 2 ** (attempt - 1), LONGEST_WAIT_S))
    raise AssertionError("ingest.max_attempts is 1 or more")


def _is_final(error: Exception) -> bool:
    """Whether asking again would be answered alike: the server understood, and refused."""
    kind = type(error)
    named = kind.__module__.startswith("obstore") and kind.__name__ != "GenericError"
    return isinstance(error, _FINAL) or named or bool(_REFUSED.search(str(error)))


def _said(error: Exception) -> str:
    """The first lines of what a store says; some add pages of their own state."""
    text = " ".join(str(error).partition("Debug source")[0].split())
    return f"{type(error).__name__}: {text[:400]}"
