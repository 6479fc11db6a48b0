"""How the ranks of a training meet: at one store, with a time limit, and with one word for all of them.

Every rank notes that it is there. The word is said once, by whichever rank has reason to: the first one, that all
are there and training begins; any, that a peer is missing, that it was asked to stop, or that there is nothing to
do. A compare-and-set decides who was first, so that either all go on or all leave for the same reason.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from types import TracebackType

from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from data_prep.records import InputError
from pipeline.ranks.rank import EXIT_INPUT, EXIT_REQUEUE, Beat, LeaveError, Rank, no_beat

POLL_S = 0.1
ANSWER_S = 10.0  # longest wait for an answer of a store that is there
LAST_WORDS_S = 3.0  # the first rank's store stays so long, so that its peers hear why it leaves
MOST_NAMED = 12  # ranks, in a message
WORD, TRAINING = "word", "training"


@dataclass(frozen=True)
class Word:
    """What all ranks do. code: None, go on; else the exit code with which they leave, and the reason."""

    code: int | None
    reason: str = ""


GO = Word(None)
DONE = Word(0, "there is nothing to do")
STOPPED = Word(EXIT_REQUEUE, "asked to stop before training began")


class Meeting:
    """One rank's way to its peers. The first rank's opens at once, so that the others may already come.

    Leaving it without a word tells the peers to leave as well.
    """

    def __init__(self, rank: Rank, timeout_s: float, training: str) -> None:
        """Begin to meet.

        Args:
            rank: with the address.
            timeout_s: within which all ranks must have come.
            training: tells ranks of other trainings, and of earlier attempts, from this one's.

        Raises:
            LeaveError: this is the first rank, and its port cannot be had.
        """
        self._rank, self._training = rank, f"{training}, {rank.world} ranks"
        self._timeout_s, self._until_s = timeout_s, time.monotonic() + timeout_s
        self._store: Store | None = None
        self._said: Word | None = None
        if rank.index == 0 and not rank.address.served:
            self._store = self._open()
            self._come(self._store)

    def __enter__(self) -> Meeting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, InputError):
            self.call_off(Word(EXIT_INPUT, str(error)))
        elif isinstance(error, KeyboardInterrupt):
            self.call_off(STOPPED)
        else:
            self.call_off(Word(1, f"{self._me()} failed: {error}") if error else DONE)
        self._store = None

    def store(self) -> Store:
        """The store at which all have met, for the process group."""
        assert self._store is not None
        return self._store

    def agree(self, beat: Beat = no_beat) -> Word:
        """Wait until a word is said, and return it; ``beat`` is told of it meanwhile.

        Raises:
            LeaveError: the first rank cannot be reached in time, or has gone, or another process has this rank.
        """
        if self._store is None:
            self._store = self._connect(beat)
            if self._store is None:
                self._said = STOPPED
                return STOPPED
        try:
            while (word := self._heard(self._store)) is None:
                beat("joining", 0)
                self._speak(self._store)
                time.sleep(POLL_S)
            self._said = word
            if word.code is not None:
                self._part(self._store, LAST_WORDS_S)
        except RuntimeError as error:  # a DistError of torch, whose base is this
            self._store = None
            raise LeaveError(f"{self._me()}: rank 0 has gone ({_first_line(error)}); see its log") from error
        return word

    def call_off(self, word: Word) -> None:
        """Tell all ranks to leave; nothing where they have been told to go on. Those not here yet are waited for
        where they would otherwise fail for nothing."""
        if self._said is not None or self._store is None:
            return
        with contextlib.suppress(RuntimeError):
            self._said = self._say(self._store, word)
            left_s = self._until_s - time.monotonic() if word.code == 0 else 0.0
            self._part(self._store, max(left_s, LAST_WORDS_S))

    def _speak(self, store: Store) -> None:
        """Say what is to be said now, if anything."""
        all_here = self._num_here(store) == self._rank.world
        if self._rank.stop.is_set():
            self._say(store, STOPPED)
        elif all_here and self._rank.index == 0:
            self._say(store, GO)
        elif not all_here and time.monotonic() > self._until_s:
            self._say(store, Word(1, self._missing(store)))

    def _say(self, store: Store, word: Word) -> Word:
        """Say it unless something was said; what counts."""
        return Word(**json.loads(store.compare_set(WORD, "", json.dumps(asdict(word)))))

    def _heard(self, store: Store) -> Word | None:
        return Word(**json.loads(store.get(WORD))) if store.check([WORD]) else None

    def _num_here(self, store: Store) -> int:
        return int(store.add("here", 0))

    def _part(self, store: Store, longest_s: float) -> None:
        """Note that the word was heard; the first rank stays until all have, or for some time."""
        heard, until_s = store.add("heard", 1), time.monotonic() + longest_s
        while self._rank.index == 0 and heard < self._rank.world and time.monotonic() < until_s:
            time.sleep(POLL_S)
            heard = store.add("heard", 0)

    def _come(self, store: Store) -> None:
        """Note that this rank is here.

        Raises:
            LeaveError: another process is here as this rank.
        """
        me = f"{socket.gethostname()} (process {os.getpid()}, {uuid.uuid4().hex[:4]})"
        who = store.compare_set(f"rank/{self._rank.index}", "", me).decode()
        if who != me:
            index = self._rank.index
            reason = (
                f"rank {index} is there twice, on {who} and on {me}; every process needs a rank of its own"
            )
            self._say(store, Word(1, reason))
            raise LeaveError(reason)
        store.add("here", 1)

    def _open(self) -> Store:
        address, world = self._rank.address, self._rank.world
        answer = timedelta(seconds=ANSWER_S)
        try:  # it listens at every address of this host, whose own name may not be known here yet
            store = TCPStore("localhost", address.port, world, True, answer, wait_for_workers=False)
        except RuntimeError as error:
            raise LeaveError(
                f"{self._me()}: port {address.port} of {socket.gethostname()} cannot be had "
                f"({_first_line(error)}); another training may still end there, else set another MASTER_PORT"
            ) from error
        store.set(TRAINING, self._training)
        return store

    def _connect(self, beat: Beat) -> Store | None:
        """The first rank's store, or the launcher's; None where a request to stop came before it was there."""
        reason = ""
        while not self._rank.stop.is_set():
            beat("joining", 0)
            found = self._attempt()
            if not isinstance(found, str):
                self._come(found)
                return found
            reason = found
            if time.monotonic() > self._until_s:
                raise LeaveError(
                    f"{self._me()}: rank 0 was not found within {self._timeout_s:g} s: {reason}. Did it start, and "
                    "is MASTER_ADDR its host, which this one can reach?"
                )
            self._rank.stop.wait(POLL_S)
        return None

    def _attempt(self) -> Store | str:
        """The store, or why it cannot be had now."""
        address = self._rank.address
        try:  # torch itself would write a page to stderr for every failure
            socket.create_connection((address.host, address.port), timeout=ANSWER_S).close()
        except OSError as error:
            return f"{address.host} port {address.port}: {error.strerror or error}"
        store = _client(address.host, address.port)
        if store is None:
            return f"what listens at {address.host} port {address.port} is not a rank of a training"
        if address.served:
            return PrefixStore(f"castbank/{address.served}", store)
        with contextlib.suppress(RuntimeError):
            other = store.get(TRAINING).decode()
            if other == self._training:
                return store
            return f"another training meets at {address.host} port {address.port} ({other})"
        return f"{address.host} port {address.port} does not answer"

    def _missing(self, store: Store) -> str:
        seen = {
            k: store.get(f"rank/{k}").decode() for k in range(self._rank.world) if store.check([f"rank/{k}"])
        }
        missing = [str(k) for k in range(self._rank.world) if k not in seen]
        hosts = [f"rank {k} on {who.partition(' ')[0]}" for k, who in seen.items()]
        address = self._rank.address
        return (
            f"rank(s) {_few(missing)} of {self._rank.world} did not join within {self._timeout_s:g} s at "
            f"{address.host}:{address.port}; seen: {_few(hosts)}"
        )

    def _me(self) -> str:
        return f"rank {self._rank.index} of {self._rank.world}"


def meet(rank: Rank, timeout_s: float, training: str) -> Store:
    """Meet without anything to prepare; the store at which all have met.

    Raises:
        LeaveError: they did not meet, or were told to leave.
    """
    with Meeting(rank, timeout_s, training) as meeting:
        word = meeting.agree()
        if word.code is not None:
            raise LeaveError(word.reason)
        return meeting.store()


def _client(host: str, port: int) -> TCPStore | None:
    """A store's client; None where no store answers: without a thread, TCPStore would wait for ever then."""
    made: list[TCPStore] = []

    def make() -> None:
        with contextlib.suppress(RuntimeError):
            made.append(
                TCPStore(host, port, None, False, timedelta(seconds=ANSWER_S), wait_for_workers=False)
            )

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    thread.join(ANSWER_S)
    return made[0] if made else None


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:200]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (
        f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    )
