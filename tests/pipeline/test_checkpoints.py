"""A checkpoint is whole or not there; damage is named and the one before is taken."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from data_prep.records import InputError
from pipeline.checkpoints import COMPLETE, Checkpoints, Progress, committed, newest


def alone(folder: Path, keep_last: int = 2) -> Checkpoints:
    return Checkpoints(folder, keep_last, index=0, world=1, gather=lambda value: [value])


def save(folder: Path) -> None:
    (folder / "engine").mkdir()
    (folder / "engine" / "weights.pt").write_bytes(b"weights of " + folder.name.encode())


def steps(folder: Path) -> list[str]:
    return [path.name for path in committed(folder)]


def test_keeps_the_last_and_finds_the_newest(tmp_path: Path) -> None:
    checkpoints = alone(tmp_path)
    assert checkpoints.newest(pytest.fail) is None
    for step in (5, 10, 15):
        checkpoints.write(Progress(step, step * 4), save)
    assert steps(tmp_path) == ["step-00000015", "step-00000010"]
    found = checkpoints.newest(pytest.fail)
    assert found is not None
    assert (found.step, found.consumed, found.world) == (15, 60, 1)


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "record"])
def test_damage_is_named_and_the_one_before_is_taken(damage: str, tmp_path: Path) -> None:
    checkpoints = alone(tmp_path)
    for step in (5, 10):
        checkpoints.write(Progress(step, step), save)
    weights, record = tmp_path / "step-00000010/engine/weights.pt", tmp_path / "step-00000010" / COMPLETE
    data = weights.read_bytes()
    if damage == "flip":
        weights.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    elif damage == "truncate":
        weights.write_bytes(data[:-1])
    elif damage == "delete":
        weights.unlink()
    else:
        record.write_text(record.read_text()[:20])
    said: list[str] = []
    found = newest(tmp_path, said.append)
    assert found is not None
    assert found.step == 5
    assert len(said) == 1
    assert "step-00000010" in said[0]
    assert damage == "record" or "weights.pt" in said[0]


def test_a_later_one_that_was_passed_over_does_not_push_out_the_one_just_written(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        alone(tmp_path).write(Progress(step, step), save)
    (tmp_path / "step-00000015/engine/weights.pt").unlink()
    (tmp_path / "step-00000008").mkdir()  # left by an attempt that was killed
    found = newest(tmp_path, lambda _: None)
    assert found is not None
    assert found.step == 10
    alone(tmp_path, keep_last=1).write(Progress(12, 12), save)  # stopped by a signal
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000012"]


def test_everything_is_on_the_disk_before_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def spy(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        committing = "" if not (tmp_path / "step-00000005" / COMPLETE).exists() else "after: "
        synced.append(committing + str(path.relative_to(tmp_path)))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", spy)
    alone(tmp_path).write(Progress(5, 5), save)
    before = {path for path in synced if not path.startswith("after: ")}
    assert before >= {"step-00000005/engine/weights.pt", "step-00000005/engine", "."}
    assert synced[-1] == "after: step-00000005"


def test_one_that_may_not_be_committed_is_none_and_removes_none(tmp_path: Path) -> None:
    checkpoints = alone(tmp_path, keep_last=1)
    checkpoints.write(Progress(5, 5), save)

    def over() -> None:
        raise PermissionError

    with pytest.raises(PermissionError):
        checkpoints.write(Progress(10, 10), save, over)
    assert steps(tmp_path) == ["step-00000005"]


def test_all_damaged_is_an_error_not_a_silent_start_from_nothing(tmp_path: Path) -> None:
    alone(tmp_path).write(Progress(5, 5), save)
    (tmp_path / "step-00000005/engine/weights.pt").write_bytes(b"")
    with pytest.raises(InputError, match="all 1 are damaged"):
        alone(tmp_path).newest(lambda _: None)


def test_an_attempt_that_was_killed_is_no_checkpoint_and_is_written_over(tmp_path: Path) -> None:
    checkpoints = alone(tmp_path)
    checkpoints.write(Progress(5, 5), save)

    def killed(folder: Path) -> None:
        save(folder)
        (folder / "left-over").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoints.write(Progress(10, 10), killed)
    found = newest(tmp_path, pytest.fail)
    assert found is not None
    assert found.step == 5
    checkpoints.write(Progress(10, 10), save)
    names = json.loads((tmp_path / "step-00000010" / COMPLETE).read_text())["sha256"]
    assert list(names) == ["engine/weights.pt"]
