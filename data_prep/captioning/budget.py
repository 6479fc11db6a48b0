"""What asking has cost and may cost: nothing is asked whose most could pass the cap."""

from __future__ import annotations

import threading

from data_prep.records import InputError


class Budget:
    """A cap in dollars over everything that one file of answers has cost. Several threads may use it."""

    def __init__(self, max_usd: float, spent_usd: float) -> None:
        self._max_usd, self._spent_usd, self._held_usd = max_usd, spent_usd, 0.0
        self._lock = threading.Lock()

    @property
    def spent_usd(self) -> float:
        return self._spent_usd

    def hold(self, usd: float) -> None:
        """Set aside what a request can cost. Raises InputError where the cap would not hold."""
        with self._lock:
            if self._spent_usd + self._held_usd + usd > self._max_usd:
                raise InputError(
                    f"captions.max_usd: {self._spent_usd:.4f} of {self._max_usd:g} dollars are spent, and the next "
                    f"request may cost {usd:.4f}; what was answered is kept: raise captions.max_usd and run the "
                    "same command again, or leave captions.url out"
                )
            self._held_usd += usd

    def settle(self, held_usd: float, cost_usd: float) -> None:
        """Give back what was held, and count what it did cost."""
        with self._lock:
            self._held_usd -= held_usd
            self._spent_usd += cost_usd
