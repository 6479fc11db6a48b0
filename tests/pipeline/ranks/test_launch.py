"""Launching real processes: reports, failures named with what they wrote, signals passed on, nobody left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from data_prep.records import InputError
from pipeline.ranks.launch import RankFailedError, launch
from pipeline.ranks.rank import EXIT_REQUEUE, LeaveError, Rank, check_gpu


def report_place(rank: Rank, offset: int) -> int:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
    rank.report((rank.index + offset, rank.world, [os.environ[name] for name in names]))
    return 0


def test_ranks_know_their_place_and_share_one_port(tmp_path: Path) -> None:
    reports: list[tuple[int, int, list[str]]] = []
    assert launch(3, report_place, (10,), tmp_path, reports.append) == 0
    reports.sort()
    assert [report[:2] for report in reports] == [(10, 3), (11, 3), (12, 3)]
    assert [report[2][:3] for report in reports] == [[str(k), "3", str(k)] for k in range(3)]
    assert len({report[2][3] for report in reports}) == 1


def test_a_rank_without_a_gpu_of_its_own_is_told_how_many_there_are() -> None:
    rank = Rank(3, 4, 1, print)
    check_gpu(rank, 2)
    with pytest.raises(
        InputError, match=r"process 2 of this machine has no GPU of its own, it sees 1; start"
    ):
        check_gpu(rank, 1)


def one_crashes(rank: Rank) -> int:
    rank.report(os.getpid())
    if rank.index == 1:
        sys.stderr.write("half a ton of lead\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    rank.stop.wait(600)  # nobody asks it to stop
    return 0


def test_a_killed_rank_is_named_with_its_last_words_and_the_others_are_ended(tmp_path: Path) -> None:
    pids: list[int] = []
    with pytest.raises(RankFailedError, match=r"rank 1 of 2 was killed by SIGKILL(.|\n)*half a ton of lead"):
        launch(2, one_crashes, (), tmp_path, pids.append)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def raises(rank: Rank, error: type[Exception]) -> int:
    raise error("data.shards: bad")


def test_an_error_of_the_input_comes_through_as_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^data\.shards: bad$"):
        launch(1, raises, (InputError,), tmp_path, lambda _: None)


def test_a_reason_to_leave_comes_through_as_one(tmp_path: Path) -> None:
    with pytest.raises(LeaveError, match=r"^data\.shards: bad$"):
        launch(1, raises, (LeaveError,), tmp_path, lambda _: None)


def test_a_bug_shows_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(RankFailedError, match=r"exited with code 1(.|\n)*KeyError: 'data.shards: bad'"):
        launch(1, raises, (KeyError,), tmp_path, lambda _: None)


def wait_to_be_stopped(rank: Rank) -> int:
    rank.report("ready")
    return EXIT_REQUEUE if rank.stop.wait(60) else 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_to_the_launcher_reach_the_ranks(number: signal.Signals, tmp_path: Path) -> None:
    before = signal.getsignal(number)
    code = launch(2, wait_to_be_stopped, (), tmp_path, lambda _: os.kill(os.getpid(), number))
    assert code == EXIT_REQUEUE
    assert signal.getsignal(number) == before


def signal_the_whole_session(logs: Path, early: bool) -> None:
    """What a scheduler does: every process of the job gets the signal, the fork server too."""
    os.setsid()
    reports: list[object] = []

    def on_report(report: object) -> None:
        reports.append(report)
        if early or len(reports) == 2:
            os.killpg(0, signal.SIGTERM)

    os._exit(launch(2, wait_to_be_stopped, (), logs, on_report))


@pytest.mark.parametrize("early", [False, True], ids=["both-listen", "one-listens"])
def test_a_signal_to_every_process_of_the_job_is_a_stop_too(early: bool, tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=signal_the_whole_session, args=(tmp_path, early))
    process.start()
    process.join(60)
    assert process.exitcode == EXIT_REQUEUE


def says_much_then_refuses(rank: Rank, aside: Path) -> int:
    if rank.index == 1:
        rank.report(os.getpid())
        while not aside.exists():
            rank.stop.wait(0.01)
        os._exit(7)  # as one that lost its peer
    for _ in range(3):
        rank.report("a step")
    aside.touch()
    raise InputError("data.shards: bad")


def until_it_has_ended(report: object) -> None:
    while isinstance(report, int) and psutil.pid_exists(report):
        pass


def test_what_was_wrong_comes_through_though_a_peer_ends_first(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^data\.shards: bad$"):
        launch(2, says_much_then_refuses, (tmp_path / "aside",), tmp_path, until_it_has_ended)


def say_when_stopped(rank: Rank) -> int:
    rank.report("ready")
    rank.stop.wait(60)
    rank.report("stopped" if rank.stop.is_set() else "forgotten")
    return EXIT_REQUEUE


def test_ctrl_c_lets_the_ranks_end_in_order(tmp_path: Path) -> None:
    heard: list[str] = []

    def listen(message: str) -> None:
        heard.append(message)
        if heard == ["ready"]:  # the other rank may not listen yet
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        launch(2, say_when_stopped, (), tmp_path, listen)
    assert sorted(heard) == ["ready", "ready", "stopped", "stopped"]


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    def listen(message: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        launch(2, waits_for_ever, (), tmp_path, listen)


def waits_for_ever(rank: Rank) -> int:
    rank.report(os.getpid())
    while True:
        rank.stop.wait(60)
