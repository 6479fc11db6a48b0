"""Which samples a step trains on: one endless stream, drawn from nothing but the seed, and each rank's share of it.

Position p of the stream is always the same sample, whatever the number of ranks, workers or restarts. Each global
batch is of one bucket (see ``cuts``), so that all ranks compute on the same shape. A bucket is a stream of its own,
epoch after epoch, cut into batches: what does not fill a batch at the end of an epoch begins the next one, and no
sample is lost. Which bucket comes next is drawn by hash, each as often as its batches are many.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from data_prep.records import InputError

Span = Callable[[int], range]
"""From a step to the positions of its global batch."""


@dataclass(frozen=True)
class Share:
    """What one rank takes of each global batch, ``batch_size`` samples or a multiple, in ``parts`` passes."""

    batch_size: int
    rank: int
    world: int
    parts: int

    def __post_init__(self) -> None:
        if self.batch_size % (self.world * self.parts):
            raise InputError(
                f"batch_size={self.batch_size} is not a multiple of {self.world} ranks x engine.accumulation="
                f"{self.parts}; give {self.world * self.parts} or a multiple of it"
            )

    @property
    def micro(self) -> int:
        """Samples of one pass where the batch is of ``batch_size``."""
        return self.batch_size // (self.world * self.parts)

    def positions(self, first_step: int, num_steps: int, span: Span | None = None) -> Iterator[list[int]]:
        """Stream positions of each pass of this rank, for steps ``[first_step, num_steps)``; without a ``span`` all
        batches are of ``batch_size``."""
        for step in range(first_step, num_steps):
            whole = span(step) if span else range(step * self.batch_size, (step + 1) * self.batch_size)
            micro = len(whole) // (self.world * self.parts)
            for part in range(self.parts):
                start = (part * self.world + self.rank) * micro
                yield list(whole[start : start + micro])


def epoch_order(keys: Sequence[str], seed: int, epoch: int) -> tuple[int, ...]:
    """Indices of ``keys`` in the order of one epoch: by hash, which outlives any library's random stream."""

    def draw(index: int) -> bytes:
        return hashlib.sha256(f"{seed}/{epoch}/{keys[index]}".encode()).digest()

    return tuple(sorted(range(len(keys)), key=draw))


@dataclass(frozen=True)
class Place:
    """What a position shows: the index-th sample of a bucket, in the bucket's own epoch."""

    bucket: int
    index: int
    epoch: int


@dataclass(frozen=True)
class _Round:
    """The batches of one epoch, in order. buckets: of each; numbers: the how many-eth of its bucket's stream;
    starts: its first position, counted from the round's."""

    buckets: tuple[int, ...]
    numbers: tuple[int, ...]
    starts: tuple[int, ...]


class Order:
    """The stream of samples, bucket by bucket. keys: of each bucket, none empty; batch_sizes: of each; same: every
    epoch in the order of the first."""

    def __init__(
        self, keys: Sequence[Sequence[str]], batch_sizes: Sequence[int], seed: int, same: bool = False
    ) -> None:
        self._keys, self._sizes, self._seed = keys, batch_sizes, seed
        self._share = sum(len(some) / size for some, size in zip(keys, batch_sizes, strict=True))
        self._round = lru_cache(maxsize=4)(self._drawn)
        # of each bucket this epoch's and, at its end, the next one's
        self._epoch = lru_cache(maxsize=2 * len(keys))(
            lambda b, e: epoch_order(keys[b], seed, 0 if same else e)
        )

    def span(self, step: int) -> range:
        """Positions of one global batch."""
        epoch = self._found(int(step / self._share), lambda e: self._batches(e) <= step)
        place, drawn = step - self._batches(epoch), self._round(epoch)
        start = self._positions(epoch) + drawn.starts[place]
        return range(start, start + self._sizes[drawn.buckets[place]])

    def at(self, position: int) -> Place:
        """What one position shows."""
        per_epoch = sum(map(len, self._keys))
        epoch = self._found(position // per_epoch, lambda e: self._positions(e) <= position)
        offset, drawn = position - self._positions(epoch), self._round(epoch)
        batch = bisect_right(drawn.starts, offset) - 1
        bucket = drawn.buckets[batch]
        own = drawn.numbers[batch] * self._sizes[bucket] + offset - drawn.starts[batch]
        own_epoch, place = divmod(own, len(self._keys[bucket]))
        return Place(bucket, self._epoch(bucket, own_epoch)[place], own_epoch)

    def _before(self, epoch: int) -> list[int]:
        """Whole batches of each bucket in the epochs before this one."""
        return [epoch * len(some) // size for some, size in zip(self._keys, self._sizes, strict=True)]

    def _batches(self, epoch: int) -> int:
        return sum(self._before(epoch))

    def _positions(self, epoch: int) -> int:
        return sum(n * size for n, size in zip(self._before(epoch), self._sizes, strict=True))

    def _found(self, guess: int, begun: Callable[[int], bool]) -> int:
        """The last epoch that has ``begun``; epochs may hold no batch where a bucket is larger than its samples."""
        epoch = max(0, guess)
        while begun(epoch + 1):
            epoch += 1
        while not begun(epoch):
            epoch -= 1
        return epoch

    def _drawn(self, epoch: int) -> _Round:
        before, after = self._before(epoch), self._before(epoch + 1)
        batches = [
            (b, n) for b, (low, high) in enumerate(zip(before, after, strict=True)) for n in range(low, high)
        ]

        def draw(batch: tuple[int, int]) -> bytes:
            return hashlib.sha256(f"batch/{self._seed}/{batch[0]}/{batch[1]}".encode()).digest()

        buckets = [b for b, _ in (sorted(batches, key=draw) if len(before) > 1 else batches)]
        numbers, following = [], list(before)
        for bucket in buckets:  # a bucket's own batches stay in their order
            numbers.append(following[bucket])
            following[bucket] += 1
        starts = [0, *accumulate(self._sizes[b] for b in buckets)][:-1]
        return _Round(tuple(buckets), tuple(numbers), tuple(starts))
