"""What a machine needs to offload to NVMe: each thing missing is said; where all is there, a training that does."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from data_prep.records import InputError
from pipeline.config import EngineConfig
from pipeline.training import nvme
from tests.small_ranks import run
from tests.small_regression import difference, reference


def offloading(folder: Path, parameters: str = "nvme") -> EngineConfig:
    return EngineConfig(
        zero_stage=3,
        offload_optimizer="nvme",
        offload_parameters=parameters,  # type: ignore[arg-type]
        offload_folder=str(folder),
        timeout_s=500,
    )


@pytest.mark.parametrize(
    ("program", "message"),
    [("ninja", "no ninja (pip install ninja)"), ("c++", "no C++ compiler (apt install g++, or set CXX)")],
)
def test_a_missing_program_is_named(program: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = shutil.which
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None if name == program else found(name))
    assert message in list(nvme.problems())


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that finds no libaio."""
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho 'libaio.h: No such file' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(InputError, match=r"offload_optimizer=nvme.*no libaio to compile with \(apt install"):
        nvme.check(offloading(tmp_path))
    nvme.check(EngineConfig(offload_optimizer="cpu"))  # not asked


def test_a_lock_of_a_killed_compilation_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    lock = tmp_path / "async_io" / "lock"
    lock.parent.mkdir()
    lock.touch()
    assert not any("killed" in problem for problem in nvme.problems())  # it may be compiling now
    os.utime(lock, (1, 1))
    assert any(f"(rm {lock})" in problem for problem in nvme.problems())


def test_a_folder_that_cannot_be_written_past_the_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = " ".join(nvme.problems(tmp_path / "file" / "below"))
    assert re.search(r"engine\.offload_folder='.*below': Not a directory", said)
    assert not any("offload_folder" in problem for problem in nvme.problems(tmp_path))
    assert not list(tmp_path.glob(".castbank-*"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("parameters", ["none", "nvme"])
def test_offloading_to_nvme_changes_nothing(parameters: str, tmp_path: Path) -> None:
    """The first time it compiles, for minutes. What lay on the device is gone with the engine."""
    if lacking := "; ".join(nvme.problems(tmp_path)):
        pytest.skip(lacking)
    config = offloading(tmp_path / "nvme", parameters)
    assert difference(run(config, 2, tmp_path), reference()) <= 1e-5
    places = {path.name for path in (tmp_path / "nvme").glob("zero_stage_3/*")}
    assert parameters == "none" or {"optimizer", "float32params"} <= places
