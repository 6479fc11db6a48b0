"""Whether this machine can offload to NVMe: DeepSpeed compiles what it needs for that at the first use, and waits,
or fails late and darkly, where it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from data_prep.records import InputError
from pipeline.config import EngineConfig

PROGRAM = "#include <libaio.h>\nint main(void) { io_context_t c = 0; return io_submit(c, 0, 0) > 0; }\n"
OPERATIONS = ("pin_memory", "async_io")  # what is compiled
STALE_S = 1800.0  # a compilation takes minutes; a lock that is older was left by one that was killed


def asks(config: EngineConfig) -> bool:
    """Whether anything is offloaded to NVMe."""
    return "nvme" in (config.offload_optimizer, config.offload_parameters)


def check(config: EngineConfig) -> None:
    """Raise InputError naming what this machine lacks, where something is to be offloaded to NVMe."""
    if asks(config) and (found := "; ".join(problems(Path(config.offload_folder)))):
        raise InputError(
            f"engine.offload_optimizer={config.offload_optimizer}, offload_parameters={config.offload_parameters}: "
            f"this machine cannot offload to nvme: {found}; or offload to cpu"
        )


def problems(folder: Path | None = None) -> Iterator[str]:
    """What is missing, each with its remedy; of ``folder`` too, which the parameters are to go to."""
    if shutil.which("ninja") is None:
        yield "no ninja (pip install ninja)"
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        yield "no C++ compiler (apt install g++, or set CXX)"
    elif not _links(compiler):
        yield "no libaio to compile with (apt install libaio-dev; dnf install libaio-devel)"
    for lock in _stale():
        yield f"a compilation was killed and left its lock, for which every later one waits (rm {lock})"
    if folder is not None and (problem := _unwritable(folder)):
        yield problem


def _links(compiler: str) -> bool:
    """Whether a program that uses libaio can be made; CFLAGS and LDFLAGS are heeded, as DeepSpeed does."""
    flags = [flag for name in ("CFLAGS", "LDFLAGS") for flag in os.environ.get(name, "").split()]
    with tempfile.TemporaryDirectory(prefix="castbank-nvme-") as folder:
        source, program = Path(folder) / "uses.cpp", Path(folder) / "uses"
        source.write_text(PROGRAM, encoding="utf-8")
        command = [compiler, str(source), "-o", str(program), *flags, "-laio"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _stale() -> Iterator[Path]:
    """Old locks in the folders that PyTorch compiles these operations in."""
    given = os.environ.get("TORCH_EXTENSIONS_DIR")
    root = Path(given) if given else Path.home() / ".cache" / "torch_extensions"
    for operation in OPERATIONS:
        for lock in (*root.glob(f"{operation}/lock"), *root.glob(f"*/{operation}/lock")):
            if time.time() - lock.stat().st_mtime > STALE_S:
                yield lock


def _unwritable(folder: Path) -> str:
    """Why files cannot be written there past the page cache; empty where they can. A RAM disk does not let one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f".castbank-{os.getpid()}"
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT)
            os.close(handle)
        finally:
            path.unlink(missing_ok=True)
    except OSError as error:
        return (
            f"engine.offload_folder={str(folder)!r}: {error.strerror} (give a folder on a local disk, not on a RAM "
            "disk, that may be written)"
        )
    return ""
