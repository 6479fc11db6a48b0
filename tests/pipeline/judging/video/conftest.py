"""Small networks on disk, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import small_networks


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images.pt, videos.pt, clip and videomae (of 4 frames)."""
    folder = tmp_path_factory.mktemp("networks")
    small_networks.save_scripted(folder)
    small_networks.save_clip(folder / "clip")
    small_networks.save_videomae(folder / "videomae", num_frames=4)
    return folder
