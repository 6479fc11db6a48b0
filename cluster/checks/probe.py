"""Looks at the node it runs on and prints what it sees as one line of JSON.

Only the standard library is used, and nothing of ours, so that the text of this file can be handed to any Python
through its standard input: ``python -P - ORDER``, or ``python -P -m cluster.checks.probe ORDER``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib.util
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.request import urlopen

MARK = "CASTBANK-NODE "  # before the JSON: a login script may print things of its own
NEEDED = (
    "torch",
    "deepspeed",
    "diffusers",
    "ray",
    "mlflow",
    "omegaconf",
    "webdataset",
    "av",
    "cv2",
    "psutil",
)
WRITE_MIB = 64
CONNECT_TIMEOUT_S = 5.0
TOKEN, LOCK = "token", "lock"  # files of a trial folder, made by who asks; the lock is held meanwhile


@dataclass(frozen=True)
class Order:
    """What to look at. folder: a trial folder; empty to skip it. url: to be opened from the node."""

    folder: str = ""
    token: str = ""
    url: str = ""


@dataclass(frozen=True)
class Folder:
    """How a trial folder behaves. visible: it holds the token of who asked; problem: why it cannot be written to;
    lock: held (as it should be: who asked holds it), free (locks do not reach across nodes), or the error."""

    visible: bool = False
    problem: str = ""
    write_mib_s: float = 0.0
    renames: bool = False
    lock: str = ""
    free_gib: float = 0.0


@dataclass(frozen=True)
class NodeReport:
    """What a node is like. at_s: its Unix time; address: what its own name stands for there; url: why the URL does
    not answer there, empty where it does."""

    host: str
    node: str  # what its scheduler calls it
    at_s: float
    python: str
    executable: str
    castbank: str = ""
    missing: list[str] = field(default_factory=list)
    cores: int = 0
    memory_gib: float = 0.0
    shm_gib: float = 0.0
    gpus: list[str] = field(default_factory=list)
    driver: str = ""
    address: str = ""
    port: int = 0  # free a moment ago
    folder: Folder = field(default_factory=Folder)
    url: str = ""


def look(order: Order) -> NodeReport:
    """Everything about this node; the time is taken first."""
    at_s = time.time()
    gpus, driver = accelerators()
    shm = shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else 0
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with socket.socket() as asked:
        asked.bind(("", 0))
        port = asked.getsockname()[1]
    return NodeReport(
        host=platform.node(),
        node=os.environ.get("SLURMD_NODENAME", platform.node()),
        at_s=at_s,
        python=platform.python_version(),
        executable=sys.executable,
        castbank=installed("castbank"),
        missing=[name for name in NEEDED if importlib.util.find_spec(name) is None],
        cores=len(os.sched_getaffinity(0)),
        memory_gib=memory / 2**30,
        shm_gib=shm / 2**30,
        gpus=gpus,
        driver=driver,
        address=own_address(),
        port=port,
        folder=try_folder(Path(order.folder), order.token) if order.folder else Folder(),
        url=no_answer(order.url) if order.url else "",
    )


def installed(name: str) -> str:
    """Version of a distribution; empty without it."""
    with contextlib.suppress(PackageNotFoundError):
        return version(name)
    return ""


def accelerators() -> tuple[list[str], str]:
    """Names of the GPUs that the driver shows, and its version."""
    words = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return [], ""
    rows = (
        [line.split(", ") for line in done.stdout.splitlines() if ", " in line]
        if done.returncode == 0
        else []
    )
    return [row[0] for row in rows], rows[0][1] if rows else ""


def own_address() -> str:
    """What this host's name stands for here, which is where gloo listens unless told otherwise."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return ""


def try_folder(folder: Path, token: str) -> Folder:
    """Read, write, rename and lock in a trial folder; a file of this node's name is left for who asked."""
    try:
        if (folder / TOKEN).read_text(encoding="utf-8") != token:
            return Folder(problem="another folder is there")
    except OSError as error:
        return Folder(problem=error.strerror or str(error))
    mine = folder / f"node-{platform.node()}-{os.getpid()}"
    try:
        write_mib_s = timed_write(mine.with_suffix(".data"))
        aside = mine.with_suffix(".aside")
        mine.write_text("old", encoding="utf-8")
        aside.write_text(token, encoding="utf-8")
        aside.replace(mine)
        renames = mine.read_text(encoding="utf-8") == token and not aside.exists()
        free_gib = shutil.disk_usage(folder).free / 2**30
    except OSError as error:
        return Folder(visible=True, problem=error.strerror or str(error))
    return Folder(True, "", write_mib_s, renames, try_lock(folder / LOCK), free_gib)


def timed_write(path: Path) -> float:
    """MiB per second of one large file, to the disk."""
    block = os.urandom(2**20)
    started_s = time.monotonic()
    try:
        with path.open("wb") as stream:
            for _ in range(WRITE_MIB):
                stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())
        return WRITE_MIB / (time.monotonic() - started_s)
    finally:
        path.unlink(missing_ok=True)


def try_lock(path: Path) -> str:
    """Whether a lock that who asked holds is seen here."""
    try:
        with path.open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        busy = error.errno in (errno.EWOULDBLOCK, errno.EACCES)
        return "held" if busy else error.strerror or str(error)
    return "free"


def no_answer(url: str) -> str:
    """Why a URL gives nothing; empty where it answers."""
    try:
        urlopen(url, timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, HTTPException, ValueError) as error:  # HTTPError and URLError are OSErrors
        return str(error)
    return ""


def to_line(report: NodeReport) -> str:
    """The report as one line."""
    return MARK + json.dumps(asdict(report))


def from_text(text: str) -> list[NodeReport]:
    """Every report in what programs have printed."""
    found = []
    for line in text.splitlines():
        if line.startswith(MARK):
            entry = json.loads(line[len(MARK) :])
            found.append(NodeReport(**{**entry, "folder": Folder(**entry["folder"])}))
    return found


if __name__ == "__main__":
    sys.stdout.write(to_line(look(Order(**json.loads(sys.argv[1])))) + "\n")
