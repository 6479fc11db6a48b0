"""Places that results cannot go to are found before the work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from data_prep.records import InputError
from jobs.outputs import check_file, check_folder, existing, unwritable


def test_a_folder_that_is_there_or_can_be_made(tmp_path: Path) -> None:
    assert unwritable(tmp_path) == unwritable(tmp_path / "a" / "b") == ""
    assert existing(tmp_path / "a" / "b") == tmp_path
    assert list(tmp_path.iterdir()) == []
    check_folder("--output", tmp_path / "a")
    check_file("--output", tmp_path / "a" / "video.mp4", ".mp4")


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_in_the_way_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--output: .*file.* is not a folder; give"):
        check_folder("--output", tmp_path / "file" / below)


def test_where_nobody_may_write() -> None:
    with pytest.raises(InputError, match=r"/proc cannot be written to"):
        check_folder("--output", Path("/proc/results"))


@pytest.mark.parametrize("name", ["video.avi", "folder.mp4"])
def test_no_file_of_this_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(InputError, match=re.escape("ends in .mp4")):
        check_file("--output", tmp_path / name, ".mp4")
