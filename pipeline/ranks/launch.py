"""The processes of one training on this machine: start them, hear from them, pass signals on, leave none behind.

They are forked from a server that has imported the heavy libraries once and has run nothing, so that a second
rank costs milliseconds and no thread or accelerator context is inherited.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from data_prep.records import InputError
from pipeline.ranks.rank import (
    EXIT_INPUT,
    EXIT_REQUEUE,
    STOP_SIGNALS,
    Address,
    LeaveError,
    Rank,
    stop_on_signals,
)

TAIL_LINES = 20
LAST_WORDS_S = 2.0  # from one rank's failure to the end of the others


class RankFailedError(RuntimeError):
    """A process of the training died; says which, how, and the end of what it wrote."""


def launch(
    num_processes: int,
    main: Callable[..., int],
    args: Sequence[Any],
    logs: Path,
    on_report: Callable[[Any], None],
    preload: Sequence[str] = (),
) -> int:
    """Run ``main(rank, *args)`` in processes that share one rendezvous; return 0, or 75 when asked to stop.

    Args:
        num_processes: how many; each takes its share of the cores.
        main: importable by name; returns an exit code, 0 or 75.
        args: picklable.
        logs: folder for ``rank-K.log``, all that a rank writes to stdout and stderr.
        on_report: called here with what ranks report, in order of arrival.
        preload: modules imported once, before the processes are forked.

    Raises:
        InputError: a rank raised one; its message.
        LeaveError: the same.
        RankFailedError: a rank crashed or was killed. The others are ended first.
        KeyboardInterrupt: Ctrl-C, after the ranks have checkpointed and ended; a second one ends them at once.
    """
    logs.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    _start_server()
    port = _free_port()
    threads = max(1, len(os.sched_getaffinity(0)) // num_processes)
    processes: list[BaseProcess] = []
    pipes: list[Connection] = []
    try:
        for index in range(num_processes):
            ours, theirs = context.Pipe(duplex=False)
            place = _Place(index, num_processes, port, threads, logs / f"rank-{index}.log")
            place.log.touch()
            process = context.Process(target=_child, args=(place, theirs, main, tuple(args)))
            process.start()
            theirs.close()
            processes.append(process)
            pipes.append(ours)
        return _Watch(processes, pipes, logs, on_report).until_done()
    finally:
        _end(processes)
        for pipe in pipes:
            pipe.close()


def _start_server() -> None:
    """Start the fork server with the stop signals blocked, which its children inherit.

    A scheduler signals every process of a job: a server that died of it would lose the ranks' exit codes, and a
    rank that has not begun to listen yet keeps the signal until it does.
    """
    resource_tracker.ensure_running()  # first: starting it unblocks SIGTERM
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True)
class _Place:
    index: int
    world: int
    port: int
    threads: int
    log: Path


def _child(place: _Place, pipe: Connection, main: Callable[..., int], args: tuple[Any, ...]) -> None:
    """What a rank process does from its first to its last instruction."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the launcher decides
    address = Address("127.0.0.1", place.port)
    rank = Rank(
        place.index, place.world, place.index, lambda message: pipe.send(("report", message)), address
    )
    stop_on_signals(rank.stop)
    pipe.send(("ready", None))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with place.log.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ.update(rank.environment(), GLOO_SOCKET_IFNAME="lo")
    import torch

    torch.set_num_threads(place.threads)
    try:
        code = main(rank, *args)
    except InputError as error:
        pipe.send(("input", str(error)))
        code = EXIT_INPUT
    except LeaveError as error:
        pipe.send(("leave", str(error)))
        code = 1
    sys.exit(code)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


class _Watch:
    """The launcher's side: collects reports and exit codes until every rank is done or one fails."""

    def __init__(
        self,
        processes: Sequence[BaseProcess],
        pipes: Sequence[Connection],
        logs: Path,
        on_report: Callable[[Any], None],
    ) -> None:
        self._processes = processes
        self._pipes = list(pipes)
        self._process_of = dict(zip(pipes, processes, strict=True))
        self._ready: list[BaseProcess] = []  # those that would survive a signal
        self._stopping = False
        self._interrupted = False
        self._logs = logs
        self._on_report = on_report
        self._said: InputError | LeaveError | None = None  # by a rank, of why all end

    def until_done(self) -> int:
        with self._signals_passed_on():
            code = self._wait()
        if self._interrupted:
            raise KeyboardInterrupt
        return code

    def _wait(self) -> int:
        while any(process.is_alive() for process in self._processes):
            living = [process.sentinel for process in self._processes if process.is_alive()]
            for ready in wait([*self._pipes, *living], timeout=1.0):
                if isinstance(ready, Connection):
                    self._receive_all(ready)
            self._check()
        for pipe in tuple(self._pipes):
            self._receive_all(pipe)
        self._check()
        return EXIT_REQUEUE if any(p.exitcode == EXIT_REQUEUE for p in self._processes) else 0

    def _hear_out(self) -> None:
        """Receive until all are silent, or one says what was wrong: its peers may be seen to end first."""
        until_s = time.monotonic() + LAST_WORDS_S
        while self._pipes and self._said is None and (left_s := until_s - time.monotonic()) > 0:
            for ready in wait(self._pipes, timeout=left_s):
                if isinstance(ready, Connection):
                    self._receive_all(ready)

    def _receive_all(self, pipe: Connection) -> None:
        while pipe in self._pipes and pipe.poll():
            self._receive(pipe)

    def _receive(self, pipe: Connection) -> None:
        try:
            kind, message = pipe.recv()
        except EOFError:
            self._pipes.remove(pipe)
            return
        if kind == "ready":
            self._ready.append(self._process_of[pipe])
            if self._stopping:
                self._stop()
        elif kind == "input":
            self._said = InputError(message)
        elif kind == "leave":
            self._said = self._said or LeaveError(message)
        else:
            self._on_report(message)

    def _check(self) -> None:
        """Raise for the first rank that failed; one killed by a signal before those that lost their peer."""
        codes = [(p.exitcode, k) for k, p in enumerate(self._processes) if p.exitcode is not None]
        failed = sorted((code, k) for code, k in codes if code not in (0, EXIT_INPUT, EXIT_REQUEUE))
        if failed and failed[0][0] > 0:
            self._hear_out()
        killed = failed and failed[0][0] < 0
        if isinstance(self._said, InputError) or (self._said is not None and not killed):
            raise self._said
        if failed:
            code, index = failed[0]
            log = self._logs / f"rank-{index}.log"
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
            raise RankFailedError(f"rank {index} of {len(self._processes)} {how}; the end of {log}:\n{tail}")

    @contextmanager
    def _signals_passed_on(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # only that one may install handlers
            yield
            return
        before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        before[signal.SIGINT] = signal.getsignal(signal.SIGINT)
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: self._stop())
        signal.signal(signal.SIGINT, lambda *_: self._interrupt())
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _interrupt(self) -> None:
        """Ctrl-C: the ranks are asked to stop and heard out; raised at once, it could come between receiving a
        message and noting it, and a rank nobody knows to be listening would never be asked. The second one ends."""
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True
        self._stop()

    def _stop(self) -> None:
        """Ask every rank to stop; one that has only begun is asked as soon as it listens."""
        self._stopping = True
        for process in self._ready:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGTERM)


def _end(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        if process.is_alive():
            process.kill()
    for process in processes:
        process.join()
        process.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
