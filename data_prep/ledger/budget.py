"""How many clips may fail before a run stops: the work of days is not done for shards that nobody will trust."""

from __future__ import annotations

import math

FALSE_ALARM = 1e-6  # chance, at each look, of stopping a run whose true share of failures is the allowed one
MOST_EXCUSED = 10  # failures that are never enough to judge by, as where one source is spoiled


class FailureBudget:
    """Counts failures of a corpus against the share of it that may fail.

    The run is over budget when more have failed than may in all, or as soon as so many of those tried so far have
    that the share must be exceeded in the end: by the Chernoff bound (Hoeffding 1963, theorem 1), k failures of n
    are less probable than exp(-n KL(k/n || p)) at a true share p. That holds where clips are tried in no particular
    order.
    """

    def __init__(self, max_share: float, num_items: int, num_tried: int = 0, num_failed: int = 0) -> None:
        self._max_share, self._num_items = max_share, num_items
        self.num_tried, self.num_failed = num_tried, num_failed

    @property
    def said(self) -> str:
        """What is allowed, for messages."""
        return f"{self._max_share * self._num_items:g}, {self._max_share:.3g} of all {self._num_items}"

    def count(self, failed: bool) -> None:
        """One more item was tried."""
        self.num_tried += 1
        self.num_failed += failed

    def is_exceeded(self, *, at_end: bool = False) -> bool:
        """Whether the run should stop; a few failures are waited for, so that one look shows all of them."""
        share = self.num_failed / max(1, self.num_tried)
        over = self.num_failed > self._max_share * self._num_items
        if at_end or self.num_failed <= MOST_EXCUSED or share <= self._max_share:
            return over and at_end
        if over:
            return True
        return self.num_tried * _divergence(share, self._max_share) > -math.log(FALSE_ALARM)


def _divergence(seen: float, allowed: float) -> float:
    """Kullback-Leibler divergence in nats of a coin of share ``seen`` in (0,1] from one of ``allowed`` in (0,1)."""
    rest = 0.0 if seen == 1 else (1 - seen) * math.log((1 - seen) / (1 - allowed))
    return seen * math.log(seen / allowed) + rest
