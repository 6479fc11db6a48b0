"""Tiny published models, each made once, that the tests of families share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.small_wan import Folder, Published, make_wan


@pytest.fixture(scope="session")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The folder of a Wan of one kind."""
    root = tmp_path_factory.mktemp("wan")

    def folder(kind: Published) -> Path:
        return root / kind if (root / kind).is_dir() else make_wan(root / kind, kind)

    return folder
