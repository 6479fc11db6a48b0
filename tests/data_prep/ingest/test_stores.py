"""Patience: what is asked again, what is not, and what is said in the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from data_prep.config import IngestConfig
from data_prep.ingest.stores import StorageError, filesystem, inside, patiently, s3_settings

LIMITS = IngestConfig(backoff_s=0.0, max_attempts=4)


class Fails:
    """Raises what it is given, one after the other, then returns 7."""

    def __init__(self, *errors: Exception) -> None:
        self.errors: Iterator[Exception] = iter(errors)
        self.num_calls = 0

    def __call__(self) -> int:
        self.num_calls += 1
        for error in self.errors:
            raise error
        return 7


def test_a_fault_that_passes_is_not_noticed() -> None:
    work = Fails(OSError("reset"), TimeoutError(), ConnectionError("x"))
    assert patiently("s3://b/k", work, LIMITS) == 7
    assert work.num_calls == 4


def test_one_that_stays_is_said_with_the_number_of_attempts() -> None:
    work = Fails(*[OSError(f"reset {k}\nDebug source: pages\nof state") for k in range(9)])
    with pytest.raises(
        StorageError, match=r"^s3://b/k: 4 attempts failed, the last with: OSError: reset 3; when"
    ):
        patiently("s3://b/k", work, LIMITS)
    assert work.num_calls == 4


@pytest.mark.parametrize(
    "error",
    [
        PermissionError("denied"),
        IsADirectoryError("k"),
        RuntimeError("Server returned non-2xx status code: 403 Forbidden"),
        RuntimeError("Server returned non-2xx status code: 404 Not Found: NoSuchBucket"),
    ],
)
def test_a_refusal_is_not_asked_twice(error: Exception) -> None:
    work = Fails(error)
    with pytest.raises(StorageError, match=r"s3://b/k: refused .*check the name, and the credentials"):
        patiently("s3://b/k", work, LIMITS)
    assert work.num_calls == 1


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_a_server_that_is_busy_is_asked_again(code: int) -> None:
    work = Fails(RuntimeError(f"Server returned non-2xx status code: {code}"))
    assert patiently("s3://b/k", work, LIMITS) == 7


def test_absence_is_its_own_answer() -> None:
    with pytest.raises(FileNotFoundError):
        patiently("s3://b/k", Fails(FileNotFoundError("k")), LIMITS)


def test_every_named_kind_of_store_has_a_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    kinds = {name: type(filesystem(name, LIMITS)).__name__ for name in ("s3", "gs", "hf", "memory", "file")}
    assert kinds == {
        "s3": "FsspecStore",
        "gs": "FsspecStore",
        "hf": "HfFileSystem",
        "memory": "MemoryFileSystem",
        "file": "LocalFileSystem",
    }
    assert inside(filesystem("s3", LIMITS), "s3://b/what#is?this/") == "b/what#is?this"
    assert inside(filesystem("hf", LIMITS), "hf://datasets/org/set/a.csv") == "datasets/org/set/a.csv"


def test_credentials_of_a_profile_or_of_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    settings, provider = s3_settings(IngestConfig(endpoint="http://minio:9000"))
    assert settings["endpoint"] == "http://minio:9000" and settings["skip_signature"] and provider is None
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = me\naws_secret_access_key = it\n")
    (tmp_path / "config").write_text("[default]\nregion = eu-west-3\n")
    settings, provider = s3_settings(LIMITS)
    assert settings == {"region": "eu-west-3"} and provider()["access_key_id"] == "me"
