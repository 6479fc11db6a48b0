"""What a doctor was asked to look at, in a place with several nodes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """num_nodes: at most as many are tried; wait_s: for each to be free; url: opened from each, where one is given;
    python: the interpreter there, where it is not the one that runs here."""

    num_nodes: int = 4
    wait_s: float = 60.0
    url: str = ""
    python: str = ""
