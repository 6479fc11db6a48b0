"""One writer per run folder; a run goes on only with what it was started with; metrics hold each step once."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from data_prep.records import InputError
from pipeline.config import CheckpointConfig
from pipeline.ranks.rank import LeaveError
from pipeline.training.checkpoints import Checkpoints, Peers, Progress
from pipeline.training.run_folder import MetricsFile, claimed, open_run, read_metrics


def write_checkpoint(folder: Path) -> None:
    checkpoints = Checkpoints(folder, CheckpointConfig(), Peers(0, 1, lambda value: [value]))
    checkpoints.write(Progress(1, 1), lambda step: (step / "weights").touch)


def try_to_claim(folder: Path, answers) -> None:  # type: ignore[no-untyped-def]
    try:
        with claimed(folder):
            answers.put("claimed")
    except InputError as error:
        answers.put(str(error))


def test_a_second_process_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    answers = context.Queue()
    with claimed(tmp_path / "run"):
        other = context.Process(target=try_to_claim, args=(tmp_path / "run", answers))
        other.start()
        assert "another castbank train" in answers.get(timeout=60)
        other.join()
    with claimed(tmp_path / "run"):
        pass


def test_an_attempt_that_takes_over_waits_for_the_end_of_the_older_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    claimed_it, may_end = context.Event(), context.Event()
    older = context.Process(target=hold, args=(tmp_path, claimed_it, may_end))
    older.start()
    assert claimed_it.wait(60)
    with (
        pytest.raises(LeaveError, match=r"earlier attempt still holds it after 0\.1 s"),
        claimed(tmp_path, 0.1),
    ):
        pass
    may_end.set()
    with claimed(tmp_path, 60):
        older.join(60)
    assert older.exitcode == 0


def hold(folder: Path, claimed_it, may_end) -> None:  # type: ignore[no-untyped-def]
    with claimed(folder):
        claimed_it.set()
        may_end.wait(60)


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(InputError, match="is a file"), claimed(tmp_path / "run"):
        pass
    with (
        pytest.raises(InputError, match=r"cannot be made \(Not a directory\)"),
        claimed(tmp_path / "run" / "in"),
    ):
        pass


def test_goes_on_only_with_the_same_configuration_and_data(tmp_path: Path) -> None:
    was = {"seed": "0", "num_steps": "10", "data.num_workers": "1", "tracking.uri": ""}
    first = open_run(tmp_path, "seed: 0\n", was, {}, "data")
    write_checkpoint(tmp_path / "checkpoints")
    free = was | {"data.num_workers": "4", "tracking.uri": "http://elsewhere"}
    assert open_run(tmp_path, "seed: 0\nmore: 1\n", free, was, "data") == first
    assert (tmp_path / "config.yaml").read_text() == "seed: 0\nmore: 1\n"
    with pytest.raises(InputError, match=r"num_steps \(was 10, is 20\); seed \(was 0, is 1\)"):
        open_run(tmp_path, "", was | {"seed": "1", "num_steps": "20"}, was, "data")
    with pytest.raises(InputError, match="other shards"):
        open_run(tmp_path, "", was, was, "other")


def test_without_a_checkpoint_it_starts_anew_with_whatever_is_given(tmp_path: Path) -> None:
    first = open_run(tmp_path, "seed: 0\n", {"seed": "0"}, {}, "data")
    for name in ("initial", "job", "heartbeats"):
        (tmp_path / name).mkdir()
    (tmp_path / "job" / "spec.json").touch()
    assert open_run(tmp_path, "seed: 0\n", {"seed": "0"}, {"seed": "0"}, "data") == first
    assert (tmp_path / "initial").is_dir()
    assert open_run(tmp_path, "seed: 1\n", {"seed": "1"}, {"seed": "0"}, "data") != first
    assert not (tmp_path / "initial").exists()
    assert (tmp_path / "job" / "spec.json").is_file()  # of the job that trains in this folder
    assert (tmp_path / "heartbeats").is_dir()


def test_killed_while_clearing_it_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_run(tmp_path, "seed: 0\n", {"seed": "0"}, {}, "data")
    (tmp_path / "logs").mkdir()

    def killed(path: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        open_run(tmp_path, "seed: 1\n", {"seed": "1"}, {"seed": "0"}, "data")
    monkeypatch.undo()
    assert not (tmp_path / "run.json").exists()
    assert open_run(tmp_path, "seed: 1\n", {"seed": "1"}, {}, "data") != first


def test_metrics_after_a_resume_hold_each_step_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    first = MetricsFile(path)
    for step in (1, 2, 3, 4):
        first.append(step, {"loss": float(step)})
    with path.open("a") as stream:
        stream.write('{"step": 5, "lo')  # the process died here
    again = MetricsFile(path)
    again.append(3, {"loss": 30.0})
    again.append(4, {"loss": 40.0})
    assert [(line["step"], line["loss"]) for line in read_metrics(path)] == [(1, 1), (2, 2), (3, 30), (4, 40)]
