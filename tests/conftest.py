"""Session fixtures: installed face packs, the demo footage and the shards made from it, a Slurm; each made once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.slurm_lab.lab import Lab, missing, running

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(threads, "1")


SOME = ("cafe", "meadow-02", "table")  # three people who meet two by two, two who stay, six who are seen once


def _quiet(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


@pytest.fixture(autouse=True)
def ordinary_priority() -> Iterator[None]:
    """After every test: SVT-AV1's encoder gives the process that calls it real-time priority 99 where it may, as
    root may, and whatever is started later inherits it; a program that spins then takes a core from all others."""
    yield
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture(scope="session")
def face_home() -> Path:
    """CASTBANK_HOME with the embedded packs installed (the per-user cache, shared between runs)."""
    from data_prep.faces import install, packs

    for name in ("embedded", "embedded_alt"):
        install.install(name)
    return packs.home()


@pytest.fixture(scope="session")
def footage(face_home: Path) -> Path:
    """The demo footage with its ground truth, made once per machine."""
    from data_prep.footage import make_footage

    folder = face_home / "footage"
    make_footage(folder, face_home, _quiet)
    return folder


@pytest.fixture(scope="session")
def shards(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of the whole footage, prepared with the demo's configuration."""
    return prepared(footage / "short.csv", footage, tmp_path_factory.mktemp("prepared") / "shards")


@pytest.fixture(scope="session")
def some_shards(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of a few clips of the footage, prepared with the demo's configuration."""
    root = tmp_path_factory.mktemp("prepared_some")
    head, *rows = (footage / "short.csv").read_text(encoding="utf-8-sig").splitlines(keepends=True)
    (root / "some.csv").write_text(head + "".join(r for r in rows if r.startswith(SOME)), encoding="utf-8")
    return prepared(root / "some.csv", footage, root / "shards")


def prepared(table: Path, footage: Path, output: Path) -> Path:
    """What castbank prepare makes of the clips of a table, with the demo's configuration."""
    from data_prep.config import PrepareConfig
    from data_prep.flow import prepare
    from jobs import config

    overrides = [f"manifest={table}", f"clips={footage / 'clips'}", f"output={output}"]
    demo = Path(__file__).parent.parent / "jobs" / "configs" / "prepare_demo.yaml"
    prepare(config.load(PrepareConfig, demo, overrides), _quiet)
    return output


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One controller and two nodes, to which Slurm's programs talk while the fixture lives; skips where there can
    be none."""
    if reason := missing():
        pytest.skip(reason)
    with running(tmp_path_factory.mktemp("slurm")) as up, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(up.conf))
        yield up
