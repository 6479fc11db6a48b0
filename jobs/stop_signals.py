"""SIGTERM and SIGUSR1 end a verb as Ctrl-C does, wherever Python is when they come.

Two places are no good to raise in. In a callback of the interpreter, such as one of each import's lock, what is
raised goes no further than a complaint. And an import that is broken off leaves a module half made, of which native
code complains, or goes on without. So an interrupt waits until an import has ended, and one that was lost is raised
again; by an interval timer, as a thread to do it cannot be started where a callback may hold any lock.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)  # schedulers send either
AGAIN_S = 0.05
IMPORT_S = 20.0  # longest wait for an import; schedulers that are in a hurry kill after 30 s
IMPORTING = "<frozen importlib._bootstrap>"


@contextmanager
def interrupted_by_signals(came: list[int]) -> Iterator[None]:
    """Raise KeyboardInterrupt on a stop signal, which is put into ``came``; a second one does not disturb."""
    until_s = 0.0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal until_s
        came.append(number)
        until_s = time.monotonic() + IMPORT_S
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        interrupt(number, frame)

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not _imports(frame) or time.monotonic() > until_s:
            raise KeyboardInterrupt
        soon()

    def soon() -> None:
        before.setdefault(signal.SIGALRM, signal.signal(signal.SIGALRM, interrupt))
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)

    def unraisable(what: sys.UnraisableHookArgs) -> None:
        if came and what.exc_type is KeyboardInterrupt:
            soon()
        else:
            tell(what)

    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    tell, sys.unraisablehook = sys.unraisablehook, unraisable
    try:
        yield
    finally:
        sys.unraisablehook = tell
        if signal.SIGALRM in before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _imports(frame: FrameType | None) -> bool:
    """Whether an import is under way."""
    while frame is not None:
        if frame.f_code.co_filename == IMPORTING:
            return True
        frame = frame.f_back
    return False
