"""Waiting in tests for what other processes do, where there is no event to wait on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
POLL_S = 0.05


def until(found: Callable[[], T], timeout_s: float = 60.0) -> T:
    """The first true thing that ``found`` gives; fails when there is none in time."""
    pause, end_s = threading.Event(), time.monotonic() + timeout_s
    while not (value := found()):
        assert time.monotonic() < end_s, f"nothing within {timeout_s} s"
        pause.wait(POLL_S)
    return value
