"""Commits interrupted at every step: what stands there is the old, the new, or recognisably unfinished."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from data_prep.records import InputError
from data_prep.running.commit import (
    NEXT,
    READY,
    WORK,
    clear,
    one_of_several,
    publish,
    sole_user,
    whole_folder,
)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def read(folder: Path) -> dict[str, str]:
    places = [
        p
        for p in folder.rglob("*")
        if p.is_file() and p.relative_to(folder).parts[0] not in (WORK, NEXT, READY)
    ]
    return {str(p.relative_to(folder)): p.read_text() for p in places}


OLD = {
    "shard-0.tar": "1",
    "shard-1.tar": "1",
    "validation-0.tar": "1",
    "shard-5.tar": "kept",
    "index.jsonl": "1",
    "faces/tracks.npz": "1",
    "manifest.json": "1",
}
ARRIVING = {
    "shard-0.tar": "2",
    "shard-2.tar": "2",
    "index.jsonl": "2",
    "faces/tracks.npz": "2",
    "manifest.json": json.dumps(
        {"shards": [{"name": name} for name in ("shard-0.tar", "shard-2.tar", "shard-5.tar")]}
    ),
}
NEW = {**ARRIVING, "shard-5.tar": "kept"}


def test_a_new_generation_replaces_the_old_and_leaves_other_files(tmp_path: Path) -> None:
    theirs = {"config.yaml": "mine", "report.html": "mine", "footage.tar": "mine", "faces/anna.png": "mine"}
    write(tmp_path, {**OLD, **theirs, f"{WORK}/x/y": "work"})
    kept = (tmp_path / "shard-5.tar").stat()
    write(tmp_path / NEXT, ARRIVING)
    publish(tmp_path)
    assert read(tmp_path) == {**NEW, **theirs}
    assert (tmp_path / "shard-5.tar").stat() == kept
    assert not (tmp_path / NEXT).exists()
    assert not (tmp_path / READY).exists()
    assert (tmp_path / WORK / "x" / "y").exists()


@pytest.mark.parametrize("step", range(12))
def test_interrupted_anywhere_the_manifest_never_stands_beside_other_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    write(tmp_path, OLD)
    write(tmp_path / NEXT, ARRIVING)
    (tmp_path / WORK).mkdir()
    left = [step]

    def stop_at(real: object) -> object:
        def act(self: Path, *args: object, **kwargs: object) -> object:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            return real(self, *args, **kwargs)  # type: ignore[operator]

        return act

    for name in ("rename", "replace", "unlink"):
        monkeypatch.setattr(Path, name, stop_at(getattr(Path, name)))
    monkeypatch.setattr(shutil, "rmtree", stop_at(shutil.rmtree))
    try:
        publish(tmp_path)
    except KeyboardInterrupt:
        assert read(tmp_path) in (OLD, NEW) or "manifest.json" not in read(tmp_path)
        decided = not (tmp_path / NEXT).exists()
        monkeypatch.undo()
        clear(tmp_path)
        assert read(tmp_path) == (NEW if decided else OLD)
    else:
        assert read(tmp_path) == NEW
    assert not (tmp_path / NEXT).exists()
    assert not (tmp_path / READY).exists()


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    final, desk = tmp_path / "done", tmp_path / "desk"
    desk.mkdir()
    with pytest.raises(RuntimeError), whole_folder(final, desk) as aside:
        write(aside, {"half": "x"})
        raise RuntimeError
    assert list(tmp_path.rglob("*")) == [desk]
    with whole_folder(final, desk) as aside:
        write(aside, {"a/b": "x"})
        assert not final.exists()
    assert read(final) == {"a/b": "x"}
    with whole_folder(final, desk) as aside:
        write(aside, {"a/b": "later"})
    assert read(final) == {"a/b": "x"}
    assert not list(desk.iterdir())


def test_two_that_write_the_same_folder_at_once_do_not_meet(tmp_path: Path) -> None:
    final, desk = tmp_path / "done", tmp_path / "desk"
    with whole_folder(final, desk) as one, whole_folder(final, desk) as other:
        assert one != other
        write(one, {"a": "same"})
        write(other, {"a": "same"})
    assert read(final) == {"a": "same"}
    assert not list(desk.iterdir())


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_an_output_that_cannot_be_a_folder_is_bad_input(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be made a folder"), sole_user(tmp_path / place):
        pass


@pytest.mark.parametrize("name", ["manifest.json", "shard-000000.tar", "config.yaml"])
def test_somebody_elses_files_are_not_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with (
        pytest.raises(InputError, match=f"holds {name}, which castbank did not prepare"),
        sole_user(tmp_path),
    ):
        pass
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_a_second_preparation_is_sent_away(tmp_path: Path) -> None:
    with (
        sole_user(tmp_path),
        pytest.raises(InputError, match="another castbank prepare is writing here"),
        sole_user(tmp_path),
    ):
        pass


def test_parts_share_and_keep_a_whole_preparation_away(tmp_path: Path) -> None:
    with one_of_several(tmp_path) as one, one_of_several(tmp_path) as other:
        assert one != other
        with (
            pytest.raises(InputError, match=r"parts of this preparation are at work.*wait"),
            sole_user(tmp_path),
        ):
            pass
        assert one.is_dir()
    assert [path.name for path in (tmp_path / WORK).iterdir()] == ["lock"]
    with sole_user(tmp_path):
        pass


def test_a_whole_preparation_keeps_parts_away(tmp_path: Path) -> None:
    with (
        sole_user(tmp_path),
        pytest.raises(InputError, match="without --part is at work here"),
        one_of_several(tmp_path),
    ):
        pass


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(lock: object, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(InputError, match="keeps no locks"), sole_user(tmp_path):
        pass


def test_what_killed_runs_left_is_cleared_by_who_is_alone(tmp_path: Path) -> None:
    left = {f"{WORK}/.aside-n1-7-x/clip-1/half": "x", f"{WORK}/.aside-n1-7-x/clip.stderr": "last words"}
    write(
        tmp_path,
        {**left, f"{NEXT}/a.tar": "x", f"{WORK}/clip/whole": "x", f"{WORK}/.files-1-of-2.json.7": "{"},
    )
    with one_of_several(tmp_path):
        assert all((tmp_path / place).is_file() for place in left)  # it may be another part's, at work now
    with sole_user(tmp_path) as desk:
        assert not (tmp_path / NEXT).exists()
        assert sorted(p.name for p in (tmp_path / WORK).iterdir()) == [desk.name, "clip", "lock"]


def test_a_worker_that_outlives_its_run_cannot_commit_what_is_being_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, final, remove = tmp_path / WORK / ".aside-killed", tmp_path / WORK / "clip", shutil.rmtree

    def half_removed(folder: Path, **how: bool) -> None:
        (next(folder.rglob("a"), None) or tmp_path / "none").unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            (desk / "clip-aside").rename(final)  # the worker's last step, just now
        remove(folder, **how)

    write(desk / "clip-aside", {"a": "1", "b": "2"})
    monkeypatch.setattr(shutil, "rmtree", half_removed)
    clear(tmp_path)
    assert not final.exists()
    assert not list((tmp_path / WORK).iterdir())


def test_who_waits_gets_the_output_when_it_is_free(tmp_path: Path) -> None:
    """As a job does that is put back in the queue while its old self is still ending."""
    with ThreadPoolExecutor(1) as pool:
        with sole_user(tmp_path):
            waiting = pool.submit(_held_once, tmp_path)
            assert not wait([waiting], timeout=0.3).done
        assert waiting.result(timeout=60) is True


def _held_once(folder: Path) -> bool:
    with sole_user(folder, wait_s=60):
        return True
