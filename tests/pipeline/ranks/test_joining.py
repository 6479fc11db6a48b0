"""Ranks meet over real sockets, or each says which of them is missing; all hear the same word."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from data_prep.records import InputError
from pipeline.ranks.joining import GO, STOPPED, Meeting, Word, meet
from pipeline.ranks.rank import Address, LeaveError, Rank


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def rank_of(index: int, world: int, port: int) -> Rank:
    return Rank(index, world, index, lambda _: None, Address("127.0.0.1", port))


def all_of(
    doing: Callable[[Rank], Any], indices: list[int], world: int, port: int | None = None
) -> list[Any]:
    """What each of some ranks returns, or the error with which it ended; each in a thread of its own."""
    port = port or free_port()

    def one(index: int) -> Any:
        try:
            return doing(rank_of(index, world, port))
        except (LeaveError, InputError) as error:
            return error

    with ThreadPoolExecutor(len(indices)) as pool:
        return list(pool.map(one, indices))


def until_all_have(store: Any, rank: Rank) -> None:
    """A barrier for the rank with which the store ends."""
    store.add("heard it", 1)
    while rank.index == 0 and store.add("heard it", 0) < rank.world:
        rank.stop.wait(0.01)


def test_ranks_that_all_come_share_a_store() -> None:
    def come(rank: Rank) -> bytes:
        store = meet(rank, 60, "a")
        store.set(f"said-{rank.index}", str(rank.index))
        said: bytes = store.get(f"said-{(rank.index + 1) % rank.world}")
        until_all_have(store, rank)
        return said

    assert all_of(come, [0, 1, 2], 3) == [b"1", b"2", b"0"]


def test_alone_any_port_will_do() -> None:
    assert meet(rank_of(0, 1, 0), 60, "a") is not None


def test_the_first_rank_need_not_know_its_own_name() -> None:
    assert meet(Rank(0, 1, 0, lambda _: None, Address("no-such-host.invalid", 0)), 60, "a") is not None


def test_every_rank_says_who_is_missing() -> None:
    found = all_of(lambda rank: meet(rank, 1, "a"), [0, 2], 4)
    host = socket.gethostname()
    for error in found:
        assert isinstance(error, LeaveError)
        assert "rank(s) 1, 3 of 4 did not join within 1 s at 127.0.0.1:" in str(error)
        assert f"seen: rank 0 on {host}, rank 2 on {host}" in str(error)


def test_without_the_first_rank_the_others_say_where_they_looked() -> None:
    port = free_port()
    (error,) = all_of(lambda rank: meet(rank, 0.3, "a"), [1], 2, port)
    assert "rank 1 of 2: rank 0 was not found within 0.3 s" in str(error)
    assert f"127.0.0.1 port {port}: Connection refused" in str(error)


def test_a_name_that_does_not_resolve_is_named() -> None:
    rank = Rank(1, 2, 1, lambda _: None, Address("no-such-host.invalid", 1))
    with pytest.raises(LeaveError, match=r"no-such-host\.invalid port 1: .*(known|resolution)"):
        meet(rank, 0.1, "a")


@contextmanager
def listening() -> Iterator[int]:
    """A port at which something listens that never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def test_a_port_that_is_taken_is_named_by_the_rank_that_needs_it() -> None:
    with listening() as port:
        (error,) = all_of(lambda rank: meet(rank, 60, "a"), [0], 2, port)
    assert f"port {port} of {socket.gethostname()} cannot be had" in str(error)
    assert "another MASTER_PORT" in str(error)


def test_what_listens_there_but_is_no_rank_does_not_hold_a_rank_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.ranks.joining.ANSWER_S", 0.5)
    with listening() as port:
        (error,) = all_of(lambda rank: meet(rank, 0.1, "a"), [1], 2, port)
    assert "is not a rank of a training" in str(error)


def test_another_training_at_the_same_port_is_not_joined() -> None:
    def come(rank: Rank) -> Any:
        return meet(rank, 2, "b" if rank.index == 1 else "a")

    first, second = all_of(come, [0, 1], 2)
    assert "rank(s) 1 of 2 did not join" in str(first)
    assert "rank 0 was not found within 2 s: " in str(second)  # it was another's, and then nobody's


def test_two_processes_with_one_rank_are_told_apart() -> None:
    found = all_of(lambda rank: meet(rank, 60, "a"), [0, 1, 1], 3)
    assert any("rank 1 is there twice" in str(error) for error in found)
    assert all(isinstance(error, LeaveError) for error in found)


def test_a_request_to_stop_is_one_for_all() -> None:
    def come(rank: Rank) -> Word:
        def when_met(phase: str, step: int) -> None:
            if rank.index == 1 and calls.append(phase) is None and len(calls) > 5:
                rank.stop.set()

        calls: list[str] = []
        with Meeting(rank, 60, "a") as meeting:
            return meeting.agree(when_met)

    assert all_of(come, [0, 1], 3) == [STOPPED, STOPPED]


def test_one_that_was_asked_to_stop_before_anybody_came_leaves_at_once() -> None:
    rank = rank_of(1, 2, free_port())
    rank.stop.set()
    assert Meeting(rank, 60, "a").agree() == STOPPED


def first_prepares(error: BaseException | None) -> Callable[[Rank], Word]:
    """What a rank hears where the first one ends its preparation with an error, or with nothing to do."""

    def come(rank: Rank) -> Word:
        with Meeting(rank, 60, "a") as meeting:
            if rank.index > 0:
                return meeting.agree()
            if error is not None:
                raise error
        return Word(0)

    return come


def test_where_there_is_nothing_to_do_all_ranks_leave_well() -> None:
    assert [word.code for word in all_of(first_prepares(None), [0, 1, 2], 3)] == [0, 0, 0]


def test_what_is_wrong_with_the_input_is_told_to_all_ranks() -> None:
    first, second = all_of(first_prepares(InputError("data.shards: bad")), [0, 1], 2)
    assert str(first) == "data.shards: bad"
    assert second == Word(2, "data.shards: bad")


def test_the_first_ranks_failure_is_told_too() -> None:
    _, second = all_of(first_prepares(LeaveError("disk is full")), [0, 1], 2)
    assert second == Word(1, "rank 0 of 2 failed: disk is full")


def test_once_all_were_told_to_go_on_leaving_says_nothing_more() -> None:
    def come(rank: Rank) -> Word:
        with Meeting(rank, 60, "a") as meeting:
            word = meeting.agree()
            meeting.call_off(Word(1, "too late"))
            until_all_have(meeting.store(), rank)
            return word

    assert all_of(come, [0, 1], 2) == [GO, GO]
