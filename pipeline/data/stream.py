"""From samples to batches: reading and decoding in the background, in the order of ``order``, and padding."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from data_prep.records import U8, InputError
from pipeline.batch import Batch
from pipeline.config import DataConfig
from pipeline.data.order import Order, Share
from pipeline.data.samples import Item, Samples, to_unit_range
from pipeline.data.sending import sent
from pipeline.families.contract import LatentGrid

WATCH_S = 1.0  # between two looks of a loading process at whether its rank lives


def collate(items: Sequence[Item]) -> Batch:
    """Pad slots and references to the longest of the batch, and read what is cached."""
    num_slots = max(len(item.cast) for item in items)
    video, label_map = _stacked_videos(items)
    frozen, captions = None, tuple(item.caption for item in items)
    if cached := [item.cached for item in items if item.cached is not None]:
        frozen, captions = cached[0].cache.read(cached, num_slots)
    faces = [item.faces for item in items]
    return Batch(
        video=video,
        label_map=label_map,
        references=_padded([f.references for f in faces]),
        reference_mask=_padded([f.reference_mask for f in faces]),
        own_faces=_padded([f.own for f in faces]),
        own_mask=_padded([f.own_mask for f in faces]),
        cast_mask=torch.tensor([[k < len(item.cast) for k in range(num_slots)] for item in items]),
        cast=tuple(item.cast for item in items),
        captions=captions,
        keys=tuple(item.key for item in items),
        positions=torch.tensor([item.position for item in items]),
        frozen=frozen,
        pictures=_padded_any([f.pictures for f in faces]),
        landmarks=_padded_any([f.landmarks for f in faces]),
    )


def _stacked_videos(items: Sequence[Item]) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """f32[B,3,T,H,W] and u8[B,T,H,W], where the items hold them."""
    videos = [item.video for item in items if item.video is not None]
    if not videos:
        return None, None
    if other := next(
        (item for item in items if item.video is not None and item.video.shape != videos[0].shape), None
    ):
        raise InputError(
            f"samples {items[0].key} and {other.key} differ in size: {_size(videos[0])} and {_size(other.video)} "
            "(frames x height x width); give the sizes to train at as data.buckets"
        )
    video = torch.from_numpy(np.stack(videos))  # B T H W C
    label_maps = np.stack([item.label_map for item in items if item.label_map is not None])
    return to_unit_range(video).permute(0, 4, 1, 2, 3).contiguous(), torch.from_numpy(label_maps)


def _padded(values: Sequence[npt.NDArray[Any]]) -> torch.Tensor:
    """[B,...] of the largest size along each axis, with zeros behind what is smaller."""
    shape = [max(sizes) for sizes in zip(*(value.shape for value in values), strict=True)]
    whole = np.zeros((len(values), *shape), values[0].dtype)
    for row, value in zip(whole, values, strict=True):
        row[tuple(slice(size) for size in value.shape)] = value
    return torch.from_numpy(whole)


def _padded_any(values: Sequence[npt.NDArray[Any] | None]) -> torch.Tensor | None:
    there = [value for value in values if value is not None]
    return _padded(there) if there else None


def _size(video: U8 | None) -> str:
    return "" if video is None else "x".join(map(str, video.shape[:3]))


class _Answers(Dataset[Item | InputError]):
    def __init__(self, samples: Samples, order: Order) -> None:
        self._samples, self._order = samples, order

    def __getitem__(self, position: int) -> Item | InputError:
        try:
            return self._samples.at(self._order, position)
        except InputError as error:
            return error


def collate_or_error(items: Sequence[Item | InputError]) -> Batch | InputError:
    """The batch, or the first error among its items, or that they do not make a batch."""
    errors = [item for item in items if isinstance(item, InputError)]
    if errors:
        return errors[0]
    try:
        return sent(collate([item for item in items if isinstance(item, Item)]))
    except InputError as error:
        return error


def _end_with_rank_alone(worker: int) -> None:
    """A scheduler signals every process of a job; a loading process that dies of it takes its rank along, which has
    a checkpoint to write. It ends with its rank, also where that is killed: torch notices so, but then waits for
    ever until what it has loaded is taken."""
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, lambda *_: os._exit(0))  # what its own rank says instead


def _watch(rank: int) -> None:
    while os.getppid() == rank:
        time.sleep(WATCH_S)
    os._exit(1)


def _dismiss(workers: Sequence[BaseProcess]) -> None:
    """End the loading processes of a rank that ends: multiprocessing would terminate and join them, for ever."""
    for worker in workers:
        if worker.is_alive() and worker.pid is not None:
            os.kill(worker.pid, signal.SIGUSR2)


class Stream:
    """One rank's batches from a step on, in order, loaded in the background.

    An InputError travels from a loading process as a value: torch would wrap its message in a traceback.
    """

    def __init__(
        self,
        samples: Samples,
        share: Share,
        steps: range,
        config: DataConfig,
        grid: LatentGrid | None = None,
    ) -> None:
        """``grid``: of the family, to count the tokens of samples of several sizes."""
        self._order = order = samples.order(share.batch_size, grid)
        loader = DataLoader(
            _Answers(samples, order),
            batch_sampler=share.positions(steps.start, steps.stop, order.span),
            collate_fn=collate_or_error,
            num_workers=config.num_workers,
            worker_init_fn=_end_with_rank_alone,
            prefetch_factor=config.prefetch if config.num_workers else None,
            # the rank's own children, which end when it is killed; those of a fork server would not
            multiprocessing_context="fork" if config.num_workers else None,
        )
        before = multiprocessing.active_children()
        self._batches = iter(loader)  # forks the workers now, before the rank starts threads of its own
        own = [process for process in multiprocessing.active_children() if process not in before]
        Finalize(None, _dismiss, args=(own,), exitpriority=10)  # before multiprocessing's own ending

    def consumed(self, step: int) -> int:
        """How many samples of the whole stream the steps before this one take, over all ranks."""
        return self._order.span(step).start

    def next(self) -> tuple[Batch, float]:
        """The next batch, and the seconds that it was waited for; raises InputError for a damaged sample."""
        start = time.perf_counter()
        batch = next(self._batches)
        if isinstance(batch, InputError):
            raise batch
        return batch, time.perf_counter() - start
