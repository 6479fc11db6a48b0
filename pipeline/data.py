"""From shards to batches: an order that depends on nothing but the seed, decoding in the background, padding.

The run consumes one endless stream of samples. Position p of it is always the same sample, whatever the number
of ranks, workers or restarts; a rank takes its share of each global batch, all ranks equally many.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data_prep.decode import decode_mp4
from data_prep.records import U8, InputError
from data_prep.shards import Sample, ShardSet
from pipeline.batch import Batch
from pipeline.config import DataConfig
from pipeline.features import OWN_FACE_MARGIN, FaceFeatures, FeatureStore, Recogniser, own_face


@dataclass(frozen=True)
class Share:
    """What one rank takes of each global batch of ``batch_size`` samples: ``parts`` passes of ``micro`` samples."""

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
        return self.batch_size // (self.world * self.parts)

    def positions(self, first_step: int, num_steps: int) -> Iterator[list[int]]:
        """Stream positions of each pass of this rank, for steps ``[first_step, num_steps)``."""
        for step in range(first_step, num_steps):
            for part in range(self.parts):
                start = step * self.batch_size + (part * self.world + self.rank) * self.micro
                yield list(range(start, start + self.micro))


@lru_cache(maxsize=2)  # this epoch's and, at its end, the next one's
def epoch_order(keys: tuple[str, ...], seed: int, epoch: int) -> tuple[int, ...]:
    """Indices of ``keys`` in the order of one epoch: by hash, which outlives any library's random stream."""

    def draw(index: int) -> bytes:
        return hashlib.sha256(f"{seed}/{epoch}/{keys[index]}".encode()).digest()

    return tuple(sorted(range(len(keys)), key=draw))


@dataclass(frozen=True)
class Item:
    """One sample, decoded: video u8[T,H,W,3] RGB, label_map u8[T,H,W], features per slot; see Batch."""

    position: int
    key: str
    caption: str
    cast: tuple[str, ...]
    video: U8
    label_map: U8
    faces: FaceFeatures


class Samples(Dataset[Item]):
    """The samples that a run trains on, by position in its stream."""

    def __init__(self, config: DataConfig, seed: int, recogniser: Recogniser) -> None:
        """Open the shards and choose.

        Raises:
            InputError: no such folder, unfinished shards, an unknown character, nothing left to train on, or
                samples with too few frames.
        """
        self._config, self._seed = config, seed
        self.shards = ShardSet.open(Path(config.shards))
        self.rows = chosen_rows(self.shards, config)
        self._keys = tuple(self.shards.rows[row].key for row in self.rows)
        self.store = FeatureStore(
            Path(config.features or f"{config.shards.rstrip('/')}.features"),
            recogniser,
            f"frames {config.num_frames} stride {config.frame_stride} least {config.min_own_face_px} "
            f"margin {OWN_FACE_MARGIN}",
        )
        self._frames(self.shards.read(self.rows[0]))  # says so now rather than in a loading process

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Item:
        epoch, place = divmod(position, len(self.rows))
        epoch = 0 if self._config.overfit else epoch  # the same order each time
        return self.load(epoch_order(self._keys, self._seed, epoch)[place], position)

    def load(self, index: int, position: int) -> Item:
        """Read, check and decode the index-th chosen sample."""
        row = self.rows[index]
        sample = self.shards.read(row)  # checks the hash and that no reference is from its own frames
        video, label_map = self._decoded(sample)
        faces = self.store.get(self.shards.rows[row].sha256, lambda: self._faces(sample, video, label_map))
        cast = tuple(member.character_id for member in sample.note.cast)
        return Item(position, sample.note.key, sample.caption, cast, video, label_map, faces)

    def has_features(self, index: int) -> bool:
        """Whether the features of the index-th chosen sample are on disk, whole."""
        return self.store.kept(self.shards.rows[self.rows[index]].sha256) is not None

    def keep_features(self, index: int) -> None:
        """See to it that the features of the index-th chosen sample are on disk; ``load`` then computes none.

        Raises:
            InputError: the sample is damaged, or has too few frames.
        """

        def cut() -> tuple[tuple[U8, ...], tuple[U8 | None, ...]]:
            sample = self.shards.read(self.rows[index])
            return self._faces(sample, *self._decoded(sample))

        self.store.get(self.shards.rows[self.rows[index]].sha256, cut)

    def raw(self) -> Iterator[Sample]:
        """The chosen samples as the shards hold them, one after the other."""
        return (self.shards.read(row) for row in self.rows)

    def videos(self) -> Iterator[torch.Tensor]:
        """The frames to train on of every chosen sample, f32[T,3,H,W] in [-1,1]."""
        for sample in self.raw():
            frames = decode_mp4(sample.mp4)[self._frames(sample)]
            yield to_unit_range(torch.from_numpy(frames)).permute(0, 3, 1, 2)

    def _decoded(self, sample: Sample) -> tuple[U8, U8]:
        """The frames to train on: video u8[T,H,W,3] and label map u8[T,H,W]."""
        frames = self._frames(sample)
        return decode_mp4(sample.mp4)[frames], sample.label_map[frames]

    def _faces(
        self, sample: Sample, video: U8, label_map: U8
    ) -> tuple[tuple[U8, ...], tuple[U8 | None, ...]]:
        """Per slot its references u8[R,112,112,3], and its own face u8[112,112,3] or None."""
        least = self._config.min_own_face_px
        own = tuple(own_face(video, label_map == member.slot, least) for member in sample.note.cast)
        return sample.references, own

    def _frames(self, sample: Sample) -> slice:
        """The frames to take of a sample: its middle; raises InputError where there are too few."""
        wanted, stride, has = self._config.num_frames, self._config.frame_stride, len(sample.note.frames)
        span = (wanted - 1) * stride + 1
        if span > has:
            raise InputError(
                f"data.num_frames={wanted} at data.frame_stride={stride} needs {span} frames; sample "
                f"{sample.note.key} has {has}: lower one of them, or prepare longer windows"
            )
        start = (has - span) // 2
        return slice(start, start + span, stride)


def chosen_rows(shards: ShardSet, config: DataConfig) -> tuple[int, ...]:
    """Index rows left by the character filters; raises InputError where a name is unknown or nothing is left."""
    known = {character for row in shards.rows for character in row.cast}
    for field in ("include_characters", "exclude_characters"):
        unknown = sorted(set(getattr(config, field)) - known)
        if unknown:
            raise InputError(
                f"data.{field}: {', '.join(unknown)} not in the shards; they show {_few(sorted(known))}"
            )
    include, exclude = set(config.include_characters), set(config.exclude_characters)
    rows = tuple(
        index
        for index, row in enumerate(shards.rows)
        if not exclude & set(row.cast) and (not include or include & set(row.cast))
    )
    if not rows:
        raise InputError(
            f"data.shards {config.shards!r}: none of {len(shards)} samples is left to train on; widen "
            "data.include_characters or data.exclude_characters, or prepare more clips"
        )
    return rows[: config.overfit] if config.overfit else rows


def _few(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def collate(items: Sequence[Item]) -> Batch:
    """Pad slots and references to the longest of the batch."""
    num_slots = max(len(item.cast) for item in items)
    faces = [
        _padded(item.faces, num_slots, max(i.faces.references.shape[1] for i in items)) for item in items
    ]
    video = torch.from_numpy(np.stack([item.video for item in items]))  # B T H W C
    return Batch(
        video=to_unit_range(video).permute(0, 4, 1, 2, 3).contiguous(),
        label_map=torch.from_numpy(np.stack([item.label_map for item in items])),
        references=torch.from_numpy(np.stack([f.references for f in faces])),
        reference_mask=torch.from_numpy(np.stack([f.reference_mask for f in faces])),
        own_faces=torch.from_numpy(np.stack([f.own for f in faces])),
        own_mask=torch.from_numpy(np.stack([f.own_mask for f in faces])),
        cast_mask=torch.tensor([[k < len(item.cast) for k in range(num_slots)] for item in items]),
        cast=tuple(item.cast for item in items),
        captions=tuple(item.caption for item in items),
        keys=tuple(item.key for item in items),
        positions=torch.tensor([item.position for item in items]),
    )


def to_unit_range(video: torch.Tensor) -> torch.Tensor:
    """u8 of any shape to f32 in [-1,1]."""
    return video.float().div_(127.5).sub_(1.0)


def _padded(faces: FaceFeatures, num_slots: int, num_references: int) -> FaceFeatures:
    slots, references = num_slots - len(faces.own), num_references - faces.references.shape[1]
    return FaceFeatures(
        references=np.pad(faces.references, ((0, slots), (0, references), (0, 0))),
        reference_mask=np.pad(faces.reference_mask, ((0, slots), (0, references))),
        own=np.pad(faces.own, ((0, slots), (0, 0))),
        own_mask=np.pad(faces.own_mask, (0, slots)),
    )


class _Answers(Dataset[Item | InputError]):
    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __getitem__(self, position: int) -> Item | InputError:
        try:
            return self._samples[position]
        except InputError as error:
            return error


def collate_or_error(items: Sequence[Item | InputError]) -> Batch | InputError:
    """The batch, or the first error among its items."""
    errors = [item for item in items if isinstance(item, InputError)]
    return errors[0] if errors else collate([item for item in items if isinstance(item, Item)])


def _outlive_signals(worker: int) -> None:
    """A scheduler signals every process of a job; a loading process that dies of it takes its rank along, which has
    a checkpoint to write. It ends with its rank."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, lambda *_: os._exit(0))  # what its own rank says instead


def _dismiss(workers: Sequence[BaseProcess]) -> None:
    """End the loading processes of a rank that ends: multiprocessing would terminate and join them, for ever."""
    for worker in workers:
        if worker.is_alive() and worker.pid is not None:
            os.kill(worker.pid, signal.SIGUSR2)


class Stream:
    """One rank's batches from a step on, in order, loaded in the background.

    An InputError travels from a loading process as a value: torch would wrap its message in a traceback.
    """

    def __init__(self, samples: Samples, share: Share, steps: range, config: DataConfig) -> None:
        loader = DataLoader(
            _Answers(samples),
            batch_sampler=share.positions(steps.start, steps.stop),
            collate_fn=collate_or_error,
            num_workers=config.num_workers,
            worker_init_fn=_outlive_signals,
            prefetch_factor=config.prefetch if config.num_workers else None,
            # the rank's own children, which end when it is killed; those of a fork server would not
            multiprocessing_context="fork" if config.num_workers else None,
        )
        before = multiprocessing.active_children()
        self._batches = iter(loader)  # forks the workers now, before the rank starts threads of its own
        own = [process for process in multiprocessing.active_children() if process not in before]
        Finalize(None, _dismiss, args=(own,), exitpriority=10)  # before multiprocessing's own ending

    def next(self) -> tuple[Batch, float]:
        """The next batch, and the seconds that it was waited for; raises InputError for a damaged sample."""
        start = time.perf_counter()
        batch = next(self._batches)
        if isinstance(batch, InputError):
            raise batch
        return batch, time.perf_counter() - start
