"""What an MLflow server stands on, tried before it is started: its database and its bucket, each in one sentence.

A password or key is never part of what is said here: it comes by reference, is handed on in an environment, and is
cut out of what a driver says about its failure.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from data_prep.records import InputError

CONNECT_TIMEOUT_S = 5
PACKAGES = {"psycopg2": "psycopg2-binary", "psycopg": "psycopg[binary]", "MySQLdb": "mysqlclient"}


@dataclass(frozen=True)
class Keys:
    """Keys of an S3 store as values; empty where boto3 is to find them by itself. Not printed, not kept."""

    key_id: str = ""
    secret_key: str = ""

    def __repr__(self) -> str:
        return "Keys(…)"


def referenced(key: str, reference: str) -> str:
    """The value that ``env:NAME`` or ``file:PATH`` stands for, read now.

    Raises:
        InputError: names ``key``; it is no reference, or there is no value. What was given is repeated only where
            it is a reference.
    """
    kind, _, place = reference.partition(":")
    if kind not in ("env", "file") or not place:
        raise InputError(
            f"{key}: a password or key does not belong on a command line or in a configuration file; put it "
            f"into a variable or a file of its own and give {key}=env:NAME or {key}=file:PATH"
        )
    if kind == "env":
        value = os.environ.get(place, "")
        problem = "" if value else f"the variable {place} is not set; export it first"
    else:
        try:
            value = Path(place).expanduser().read_text(encoding="utf-8").strip()
            problem = "" if value else "the file is empty"
        except (OSError, UnicodeDecodeError) as error:
            value, problem = "", f"the file cannot be read: {getattr(error, 'strerror', '') or error}"
    if problem:
        raise InputError(f"{key}={reference}: {problem}")
    return value


def check_database(key: str, uri: str) -> str:
    """Raise InputError where the database of a URI cannot be used; return the URI as it may be shown.

    Raises:
        InputError: it is no URI of a database, its driver is not installed, or it does not answer.
    """
    from sqlalchemy import create_engine
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    try:
        url = make_url(uri)
        shown = url.render_as_string(hide_password=True)
        arguments = {"connect_timeout": CONNECT_TIMEOUT_S} if url.get_backend_name() != "sqlite" else {}
        engine = create_engine(url, connect_args=arguments)
    except (ArgumentError, NoSuchModuleError) as error:
        raise InputError(
            f"{key}: what it stands for is not the URI of a database that SQLAlchemy knows; "
            "postgresql://USER:PASSWORD@HOST:PORT/NAME is wanted"
        ) from error
    except ModuleNotFoundError as error:
        package = PACKAGES.get(error.name or "", error.name)
        raise InputError(
            f"{key}: {shown} needs the driver {error.name}, which is not installed; pip install '{package}'"
        ) from error
    try:
        engine.connect().close()
    except (SQLAlchemyError, OSError) as error:
        why = _first_line(getattr(error, "orig", None) or error)
        if url.password:
            why = why.replace(str(url.password), "***")
        raise InputError(
            f"{key}: the database {shown} does not take us ({why}); check that it runs, is reached from here, and "
            "that its user and name exist"
        ) from None  # a chained error might be printed with what it was given
    finally:
        engine.dispose()
    return shown


def check_bucket(key: str, destination: str, endpoint: str, keys: Keys) -> None:
    """Raise InputError where nothing can be written to, read from and removed below ``s3://BUCKET/PREFIX``."""
    parts = urlparse(destination)
    bucket, prefix = parts.netloc, parts.path.strip("/")
    if parts.scheme != "s3" or not bucket:
        raise InputError(f"{key}={destination!r}: s3://BUCKET or s3://BUCKET/PREFIX is wanted")
    client = s3_client(key, endpoint, keys)
    item = {"Bucket": bucket, "Key": f"{prefix}/castbank-check-{uuid.uuid4().hex}".lstrip("/")}
    actions: dict[str, Callable[[], object]] = {
        "found": partial(client.head_bucket, Bucket=bucket),
        "written to": partial(client.put_object, **item, Body=b"castbank"),
        "read from": partial(client.get_object, **item),
        "cleaned": partial(client.delete_object, **item),
    }
    for done, act in actions.items():
        if problem := _s3_problem(act):
            at = endpoint or "AWS"
            raise InputError(f"{key}: {destination} at {at} cannot be {done}: {problem}")


def s3_client(key: str, endpoint: str, keys: Keys) -> Any:
    """A boto3 client that gives up after seconds.

    Raises:
        InputError: boto3 is not installed, or ``endpoint`` is no URL.
    """
    try:
        import boto3
        from botocore.config import Config
    except ModuleNotFoundError as error:
        raise InputError(f"{key}: s3:// needs boto3, which is not installed; pip install boto3") from error
    limits = Config(connect_timeout=CONNECT_TIMEOUT_S, read_timeout=15, retries={"total_max_attempts": 1})
    try:
        return boto3.client(
            "s3",
            endpoint_url=endpoint or None,
            aws_access_key_id=keys.key_id or None,
            aws_secret_access_key=keys.secret_key or None,
            config=limits,
        )
    except ValueError as error:
        raise InputError(
            f"{key}: the S3 endpoint {endpoint!r} is no URL; http://HOST:PORT is wanted"
        ) from error


def _s3_problem(act: Callable[[], object]) -> str:
    """What went wrong and what to do; empty where nothing did."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        act()
    except NoCredentialsError:
        return "no keys are found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name where they are"
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in ("404", "NoSuchBucket"):
            return "there is no such bucket; make it, or correct the name"
        if code in ("403", "AccessDenied", "SignatureDoesNotMatch", "InvalidAccessKeyId"):
            return f"the keys may not ({code}); give them that right, or other keys"
        return _first_line(error)
    except BotoCoreError as error:
        return f"{_first_line(error)}; check the endpoint"
    return ""


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).strip()
