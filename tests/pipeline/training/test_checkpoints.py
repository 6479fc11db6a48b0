"""A checkpoint is whole or not there; damage is named and the one before is taken."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.records import InputError
from pipeline.config import CheckpointConfig
from pipeline.ranks.rank import LeaveError
from pipeline.training.checkpoints import COMPLETE, Checkpoints, Peers, Progress, committed, newest
from tests.waiting import until


def alone(folder: Path, keep_last: int = 2, **more: object) -> Checkpoints:
    """One rank that waits for each checkpoint."""
    return Checkpoints(
        folder, CheckpointConfig(keep_last=keep_last, **more), Peers(0, 1, lambda value: [value])
    )


def save(folder: Path) -> Callable[[], None]:
    def write() -> None:
        (folder / "engine").mkdir()
        (folder / "engine" / "weights.pt").write_bytes(b"weights of " + folder.name.encode())

    return write


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
        raise PermissionError("taken over")

    with pytest.raises(LeaveError, match="rank 0: taken over"):
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

    def killed(folder: Path) -> Callable[[], None]:
        save(folder)()
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


class TwoRanks:
    """Two ranks of one run in two threads, which gather by meeting at a barrier."""

    def __init__(self, folder: Path, config: CheckpointConfig) -> None:
        self._folder, self._config = folder, config

    def gather_of(
        self, index: int, met: threading.Barrier, table: list[object]
    ) -> Callable[[object], list[object]]:
        def gather(value: object) -> list[object]:
            table[index] = value
            met.wait(30)
            given = list(table)
            met.wait(30)
            return given

        return gather

    def ranks(self) -> list[Checkpoints]:
        gathers = []
        for _ in ("main", "behind"):
            met, table = threading.Barrier(2), [None, None]
            gathers.append([self.gather_of(k, met, table) for k in range(2)])
        main, behind = gathers
        return [Checkpoints(self._folder, self._config, Peers(k, 2, main[k], behind[k])) for k in range(2)]


def on_both(ranks: list[Checkpoints], work: Callable[[int, Checkpoints], object]) -> list[object]:
    """What a piece of work gives, or raises, on each rank."""
    answers: list[object] = [None, None]

    def run(index: int) -> None:
        try:
            answers[index] = work(index, ranks[index])
        except LeaveError as error:
            answers[index] = error

    threads = [threading.Thread(target=run, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers


def share(index: int, folder: Path, gate: threading.Event) -> Callable[[], None]:
    """A rank's share, whose writing waits at a gate."""

    def write() -> None:
        assert gate.wait(30)
        (folder / f"part-{index}").write_text(f"{folder.name}, {index}")

    return write


def test_training_goes_on_while_a_checkpoint_is_written_and_the_next_one_waits_for_it(tmp_path: Path) -> None:
    ranks, gate = TwoRanks(tmp_path, CheckpointConfig()).ranks(), threading.Event()

    def write(step: int) -> list[object]:
        return on_both(ranks, lambda k, c: c.write(Progress(step, step), lambda f: share(k, f, gate)))

    assert write(5) == [[], []]  # both are back
    assert [c.done() for c in ranks] == [[], []]
    assert steps(tmp_path) == []
    gate.set()
    first = tmp_path / "step-00000005"
    assert write(10) == [[first], [first]]
    assert on_both(ranks, lambda _, c: c.wait()) == [[tmp_path / "step-00000010"]] * 2
    assert steps(tmp_path) == ["step-00000010", "step-00000005"]
    assert set(json.loads((first / COMPLETE).read_text())["sha256"]) == {"part-0", "part-1"}
    assert [c.wait() for c in ranks] == [[], []]


def test_a_write_that_fails_on_one_rank_ends_all_with_its_reason(tmp_path: Path) -> None:
    ranks, gate = TwoRanks(tmp_path, CheckpointConfig()).ranks(), threading.Event()
    gate.set()
    on_both(ranks, lambda k, c: c.write(Progress(5, 5), lambda f: share(k, f, gate)))

    def full(index: int, folder: Path) -> Callable[[], None]:
        def write() -> None:
            raise OSError(28, "No space left on device")

        return write if index == 1 else share(index, folder, gate)

    on_both(ranks, lambda k, c: c.write(Progress(10, 10), lambda f: full(k, f)))
    answers = on_both(ranks, lambda _, c: c.wait())
    for answer in answers:
        assert "rank 1: [Errno 28] No space left on device); the one before is still there" in str(answer)
    assert steps(tmp_path) == ["step-00000005"]


def test_what_is_being_written_is_committed_when_training_fails(tmp_path: Path) -> None:
    behind = Peers(0, 1, lambda value: [value], lambda value: [value])
    gate = threading.Event()
    with pytest.raises(FloatingPointError), Checkpoints(tmp_path, CheckpointConfig(), behind) as checkpoints:
        checkpoints.write(Progress(5, 5), lambda folder: share(0, folder, gate))
        gate.set()
        raise FloatingPointError
    assert steps(tmp_path) == ["step-00000005"]


def test_a_committed_one_is_told_without_waiting(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, CheckpointConfig(), Peers(0, 1, lambda v: [v], lambda v: [v]))
    checkpoints.write(Progress(5, 5), save)
    assert until(checkpoints.done) == [tmp_path / "step-00000005"]


@pytest.mark.parametrize(("best_is", "best"), [("least", 15), ("greatest", 5)])
def test_the_best_stay_beside_the_last(best_is: str, best: int, tmp_path: Path) -> None:
    checkpoints = alone(tmp_path, keep_last=1, keep_best=1, best_of="loss", best_is=best_is)
    scores = {5: 0.9, 10: 0.5, 15: 0.2, 20: None, 25: 0.7}
    for step, score in scores.items():
        checkpoints.write(Progress(step, step, score), save)
    assert steps(tmp_path) == ["step-00000025", f"step-{best:08d}"]
