"""A real Slurm for the tests of this folder, started once and only where one of them asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.slurm_lab import lab


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Lab]:
    """One controller and two nodes of four cores, to which Slurm's programs talk while the fixture lives."""
    if reason := lab.missing():
        pytest.skip(reason)
    with lab.running(tmp_path_factory.mktemp("slurm")) as up, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(up.conf))
        yield up
