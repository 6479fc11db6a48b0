"""Fetching from the real registries this machine is configured for, and the messages when that fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from data_prep.records import InputError
from data_prep.registry import RegistryFile, fetch

PIP_FILE = RegistryFile(  # one of the smallest packages there are
    "pip", "six==1.16.0", "six.py", "4ce39f422ee71467ccac8bed76beb05f8c321c7f0ceda9279ae2dfa3670106b3"
)
NPM_FILE = RegistryFile(
    "npm",
    "isarray@2.0.5",
    "package/index.js",
    "9b8c691372802da788c9c5f4e1ca2f1ed0b88ab8722176c2aea15e38ec86d249",
)


def test_members_come_in_order_and_sliced() -> None:
    sliced = RegistryFile("pip", PIP_FILE.spec, PIP_FILE.member, PIP_FILE.sha256, start=2, stop=11)
    whole, part, script = fetch([PIP_FILE, sliced, NPM_FILE])
    assert part == whole[2:11]
    assert b"def with_metaclass" in whole
    assert b"isArray" in script


def test_nothing_is_asked_for_nothing() -> None:
    assert fetch([]) == []


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (
            RegistryFile("pip", "six==0.0.99", "six.py", ""),
            "six==0.0.99: the registry does not have this version",
        ),
        (
            RegistryFile("npm", "isarray@99.0.0", "x", ""),
            "isarray@99.0.0: the registry does not have this version",
        ),
        (RegistryFile("pip", "six==1.16.0", "seven.py", ""), "no member 'seven.py'"),
        (RegistryFile("pip", "six==1.16.0", "six.py", "0" * 64), "six.py has sha256 4ce39f.*expected 0000"),
    ],
)
def test_what_is_not_there_is_named(file: RegistryFile, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fetch([file])


def test_an_unreachable_registry_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    with pytest.raises(InputError, match="cannot be reached"):
        fetch([PIP_FILE])


def test_npm_comes_from_pypi_where_a_machine_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert b"isArray" in fetch([NPM_FILE])[0]
