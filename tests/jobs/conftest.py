"""One small training, run to its end once, that the tests of castbank train share."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.__main__ import main
from tests.small_shards import make_shards
from tests.small_training import SMALL, Workplace


@pytest.fixture(scope="session")
def place(face_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    root = tmp_path_factory.mktemp("train")
    make_shards(root / "shards")
    (root / "small.yaml").write_text(SMALL)
    made = Workplace(root)
    assert main(made.arguments("whole")) == 0
    return made
