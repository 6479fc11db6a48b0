"""The stream of samples: batches of one bucket, nothing lost, a pure function of the seed; against a plain loop."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from pipeline.data.order import Order, Place, Share, epoch_order

KEYS = [[f"a{k}" for k in range(23)], [f"b{k}" for k in range(9)], [f"c{k}" for k in range(3)]]
SIZES = [4, 8, 8]


def slow(keys: list[list[str]], sizes: list[int], seed: int, num_rounds: int) -> list[list[Place]]:
    """Every batch, made by keeping a queue per bucket and what is left over in it."""
    queues: list[list[Place]] = [[] for _ in keys]
    taken = [0] * len(keys)
    batches = []
    for epoch in range(num_rounds):
        drawn = []
        for b, some in enumerate(keys):
            queues[b] += [Place(b, index, epoch) for index in epoch_order(some, seed, epoch)]
            for number in range(taken[b], taken[b] + len(queues[b]) // sizes[b]):
                drawn.append((hashlib.sha256(f"batch/{seed}/{b}/{number}".encode()).digest(), b))
            taken[b] += len(queues[b]) // sizes[b]
        waiting = [list(queue) for queue in queues]
        for _, b in sorted(drawn) if len(keys) > 1 else drawn:
            batches.append(waiting[b][: sizes[b]])
            waiting[b] = waiting[b][sizes[b] :]
        queues = waiting
    return batches


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize(
    ("keys", "sizes"), [(KEYS, SIZES), (KEYS[:1], [4]), (KEYS[2:], [8]), (KEYS[1:], [8, 8])]
)
def test_it_is_what_a_plain_loop_over_queues_gives(
    keys: list[list[str]], sizes: list[int], seed: int
) -> None:
    order, batches, at = Order(keys, sizes, seed), slow(keys, sizes, seed, 12), 0
    for step, batch in enumerate(batches):
        span = order.span(step)
        assert (span.start, len(span)) == (at, len(batch))
        assert [order.at(position) for position in span] == batch
        assert len({place.bucket for place in batch}) == 1
        at = span.stop


def test_it_is_the_same_wherever_one_begins() -> None:
    whole = Order(KEYS, SIZES, 3)
    spans = [whole.span(step) for step in range(40)]
    places = [[whole.at(position) for position in span] for span in spans]
    for step in (39, 7, 22, 0):  # a new one each, as after a resume
        begun = Order(KEYS, SIZES, 3)
        assert begun.span(step) == spans[step]
        assert [begun.at(position) for position in spans[step]] == places[step]


def test_every_sample_is_shown_alike_often_over_epochs() -> None:
    order = Order(KEYS, SIZES, 1)
    shown: Counter[tuple[int, int]] = Counter()
    step = 0
    while order.span(step).stop <= 35 * 40:
        shown.update((place.bucket, place.index) for place in map(order.at, order.span(step)))
        step += 1
    assert set(shown) == {(b, k) for b, some in enumerate(KEYS) for k in range(len(some))}
    assert max(shown.values()) - min(shown.values()) <= 3  # what waits for a batch to fill


def test_one_bucket_is_an_endless_row_of_epochs() -> None:
    order = Order([KEYS[0]], [4], 9)
    assert [order.span(step) for step in (0, 1, 100)] == [range(4), range(4, 8), range(400, 404)]
    for position in range(100):
        epoch, place = divmod(position, 23)
        assert order.at(position) == Place(0, epoch_order(KEYS[0], 9, epoch)[place], epoch)


@pytest.mark.parametrize(("world", "parts"), [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1)])
def test_ranks_share_each_batch_equally_whatever_its_bucket(world: int, parts: int) -> None:
    order = Order(KEYS, SIZES, 0)
    for step in range(12):
        passes = [list(Share(4, r, world, parts).positions(step, step + 1, order.span)) for r in range(world)]
        assert len({len(some) for rank in passes for some in rank}) == 1
        assert sorted(p for rank in passes for some in rank for p in some) == list(order.span(step))
