"""The samples that a run trains on: which of the shards', in which buckets, and what each is when loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from data_prep.decode import decode_mp4
from data_prep.records import U8, InputError, Progress
from data_prep.shards import IndexRow, Sample, ShardSet
from pipeline.config import DataConfig
from pipeline.data.cuts import Bucket, Cut, Outline, best_bucket, cut_of, stays_true_mirrored
from pipeline.data.features import (
    OWN_FACE_MARGIN,
    FaceCrops,
    FaceFeatures,
    FeatureStore,
    Recogniser,
    features_folder,
    own_face,
)
from pipeline.data.frozen import EMPTY, Cached, FrozenCache, latents_name
from pipeline.data.order import Order
from pipeline.data.outlines import outlines_of
from pipeline.families.contract import LatentGrid
from pipeline.training.validation import held_out


@dataclass(frozen=True)
class Item:
    """One cut of one sample: video u8[T,H,W,3] RGB and label_map u8[T,H,W], or, instead of both and of the caption,
    where in a cache they are read when a batch is made; features per slot; see Batch."""

    position: int
    key: str
    caption: str
    cast: tuple[str, ...]
    video: U8 | None
    label_map: U8 | None
    faces: FaceFeatures
    cached: Cached | None = None


class Samples:
    """The samples that a run trains on, each in as many variants as ``data.windows_per_sample``."""

    def __init__(
        self, config: DataConfig, seed: int, recogniser: Recogniser, validation: bool = False
    ) -> None:
        """Open the shards and choose; for ``validation`` those that training leaves out.

        Raises:
            InputError: no such folder, unfinished shards, an unknown character, nothing left to train on, or
                samples with too few frames.
        """
        self.config, self.seed = config, seed
        self._cache: FrozenCache | None = None
        self.shards = ShardSet.open(Path(config.shards))
        asked = f"least {config.min_own_face_px} margin {OWN_FACE_MARGIN}"
        self.store = FeatureStore(features_folder(config), recogniser, asked)
        self._outlines: tuple[Outline, ...] | None = None
        rows = part_of(self.shards, chosen_rows(self.shards, config), (config, seed), validation)
        if config.buckets:
            self.know_outlines()
        self.buckets, self.rows, self.left_out = self._sorted(rows)
        if self._outlines is None:
            self.cut(0, 0)  # says so now, rather than in a loading process, where frames are too few

    def __len__(self) -> int:
        return len(self.rows)

    def know_outlines(self, progress: Progress = lambda *_: None) -> None:
        """Learn the size of every sample, which costs a read of each one's note where nobody has before."""
        self._outlines = outlines_of(self.shards, features_folder(self.config), progress)

    def read_from(self, cache: FrozenCache) -> None:
        """From now on read latents and texts there, and no shard."""
        self.know_outlines()
        self._cache = cache

    def texts(self) -> dict[str, int]:
        """Every text that training reads: its name in the cache, and a sample that it is of."""
        return {self.sample_row(index).sha256: index for index in range(len(self))}

    def cuts(self) -> dict[str, tuple[int, int]]:
        """Every cut that training takes: its name in the cache, and a (sample, variant) that it is of; the same cut
        comes once."""
        found: dict[str, tuple[int, int]] = {}
        for index in range(len(self)):
            for variant in range(self.config.windows_per_sample):
                name = self.cut_name(index, self.cut(index, variant))
                found.setdefault(name, (index, variant))
        return found

    def missing(self, cache: FrozenCache) -> tuple[int, int]:
        """How many texts, the empty one included, and how many latents of these samples a cache lacks."""
        texts = sum(name not in cache.text for name in (EMPTY, *self.texts()))
        return texts, sum(name not in cache.latents for name in self.cuts())

    def order(self, batch_size: int, grid: LatentGrid | None = None) -> Order:
        """The stream of these samples in batches of ``batch_size``, or, with ``data.equal_tokens`` and the ``grid``
        that counts them, of a multiple."""
        sizes = [batch_size * times for times in multiples(self.config, list(self.buckets), grid)]
        keys = [[self.sample_row(index).key for index in some] for some in self.buckets.values()]
        return Order(keys, sizes, self.seed, same=bool(self.config.overfit))

    def sample_row(self, index: int) -> IndexRow:
        """What the shards' index says of the index-th chosen sample."""
        return self.shards.rows[self.rows[index]]

    def at(self, order: Order, position: int) -> Item:
        """What a position of the stream shows."""
        place = order.at(position)
        index = list(self.buckets.values())[place.bucket][place.index]
        return self.load(index, position, place.epoch % self.config.windows_per_sample)

    def load(self, index: int, position: int, variant: int = 0) -> Item:
        """The index-th chosen sample: from the cache, or read, checked and decoded."""
        if self._cache is not None:
            return self._kept(self._cache, index, position, variant)
        sample = self.read(index)
        cut = self.cut(index, variant, sample)
        video, label_map = decoded(sample, cut)
        faces = self.store.get(self.cut_name(index, cut), lambda: self._faces(sample, video, label_map))
        cast = tuple(member.character_id for member in sample.note.cast)
        return Item(position, sample.note.key, sample.caption, cast, video, label_map, faces)

    def read(self, index: int) -> Sample:
        """The index-th chosen sample as the shards hold it; its hash and that no reference is from its own frames
        are checked."""
        return self.shards.read(self.rows[index])

    def cut(self, index: int, variant: int, sample: Sample | None = None) -> Cut:
        """What is taken of the index-th chosen sample in one of its variants; ``sample`` spares reading it."""
        key = self.sample_row(index).key
        if self._outlines is not None:
            outline = self._outlines[self.rows[index]]
        else:
            outline = outline_of(sample or self.read(index))
        return cut_of(self.config, self.seed, key, outline, variant)

    def outline(self, index: int) -> Outline:
        """Of the index-th chosen sample, where outlines are known."""
        assert self._outlines is not None
        return self._outlines[self.rows[index]]

    def own_size(self, index: int) -> Bucket:
        """What the index-th chosen sample is trained at where there are no buckets."""
        outline = self.outline(index)
        return Bucket(self.config.num_frames, outline.height_px, outline.width_px)

    def cut_name(self, index: int, cut: Cut) -> str:
        """Under which latents and face features of one cut of a chosen sample are kept."""
        return latents_name(self.sample_row(index).sha256, cut)

    def keep_features(self, places: Sequence[tuple[int, int]]) -> None:
        """Compute the features of some (chosen sample, variant), in one pack; ``load`` then computes none of them.

        Raises:
            InputError: a sample is damaged, or has too few frames.
        """
        names = [self.cut_name(index, self.cut(index, variant)) for index, variant in places]
        self.store.keep(
            {name: partial(self._crops, *place) for name, place in zip(names, places, strict=True)}
        )

    def raw(self) -> Iterator[Sample]:
        """The chosen samples as the shards hold them, one after the other."""
        return (self.read(index) for index in range(len(self)))

    def videos(self) -> Iterator[torch.Tensor]:
        """The first variant of every chosen sample, f32[T,3,H,W] in [-1,1]."""
        for index, sample in enumerate(self.raw()):
            video, _ = decoded(sample, self.cut(index, 0, sample))
            yield to_unit_range(torch.from_numpy(video)).permute(0, 3, 1, 2)

    def _kept(self, cache: FrozenCache, index: int, position: int, variant: int) -> Item:
        row, cut = self.sample_row(index), self.cut(index, variant)
        cached = Cached(cache, row.key, row.sha256, cut)
        faces = self.store.get(cached.name, partial(self._crops, index, variant))
        return Item(position, row.key, "", row.cast, None, None, faces, cached)

    def _crops(self, index: int, variant: int) -> FaceCrops:
        """The faces of one variant of a chosen sample, from its shard."""
        sample = self.read(index)
        return self._faces(sample, *decoded(sample, self.cut(index, variant, sample)))

    def _faces(self, sample: Sample, video: U8, label_map: U8) -> FaceCrops:
        least = self.config.min_own_face_px
        own = tuple(own_face(video, label_map == member.slot, least) for member in sample.note.cast)
        return sample.references, own

    def _sorted(
        self, rows: tuple[int, ...]
    ) -> tuple[dict[Bucket | None, tuple[int, ...]], tuple[int, ...], int]:
        """The chosen samples by bucket, each a tuple of indices into the rows that fit one, those rows, and how
        many fit none; without ``data.buckets`` one bucket, None, holds all."""
        if self._outlines is None or not self.config.buckets:
            return {None: tuple(range(len(rows)))}, rows, 0
        fitting = {row: best_bucket(self.config, self._outlines[row]) for row in rows}
        left = tuple(row for row in rows if fitting[row] is not None)
        if not left:
            raise InputError(
                f"data.buckets={list(self.config.buckets)}: none of {len(rows)} samples fits one, such as "
                f"{self.shards.rows[rows[0]].key}, {_said(self._outlines[rows[0]])}; give smaller or shorter ones, "
                f"or a larger data.max_upscale than {self.config.max_upscale:g}"
            )
        by: dict[Bucket | None, list[int]] = {Bucket.parse(text): [] for text in self.config.buckets}
        for index, row in enumerate(left):
            by[fitting[row]].append(index)
        return {bucket: tuple(some) for bucket, some in by.items() if some}, left, len(rows) - len(left)


def _said(outline: Outline) -> str:
    return f"{outline.num_frames} frames of {outline.height_px}x{outline.width_px}"


def outline_of(sample: Sample) -> Outline:
    """What decides a sample's cuts."""
    note = sample.note
    return Outline(len(note.frames), note.height_px, note.width_px, stays_true_mirrored(sample.caption))


def decoded(sample: Sample, cut: Cut) -> tuple[U8, U8]:
    """video u8[T,H,W,3] and label map u8[T,H,W] of one cut.

    Raises:
        InputError: the video cannot be read, or has other frames than the label map.
    """
    try:
        video = decode_mp4(sample.mp4)
    except InputError as error:
        raise InputError(f"sample {sample.note.key}: {error}; prepare the shards again") from error
    if video.shape[:3] != sample.label_map.shape:
        raise InputError(
            f"sample {sample.note.key}: mp4 has {_size(video)}, labelmap.png {_size(sample.label_map)} (frames x "
            "height x width); they must be alike: prepare the shards again"
        )
    return cut.taken(video, labels=False), cut.taken(sample.label_map, labels=True)


def _size(frames: U8) -> str:
    return "x".join(map(str, frames.shape[:3]))


def multiples(config: DataConfig, buckets: Sequence[Bucket | None], grid: LatentGrid | None) -> list[int]:
    """How many times ``batch_size`` each bucket's batches hold: 1, or, with ``data.equal_tokens``, as often as the
    tokens of the largest bucket's batch allow. Raises InputError for a bucket that the grid cannot hold."""
    sizes = [bucket for bucket in buckets if bucket is not None]
    if grid is None or not sizes:
        return [1] * len(buckets)
    try:
        tokens = [grid.num_tokens(b.num_frames, b.height_px, b.width_px)[1] for b in sizes]
    except InputError as error:
        raise InputError(f"data.buckets: {error}") from error
    return [max(tokens) // count if config.equal_tokens else 1 for count in tokens]


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
    return rows


def part_of(
    shards: ShardSet, rows: tuple[int, ...], asked: tuple[DataConfig, int], validation: bool
) -> tuple[int, ...]:
    """Of some index rows those to train on, or those of held-out sources; ``asked``: configuration and seed."""
    config, seed = asked
    kept = held_out([shards.rows[row] for row in rows], config.held_out, seed)
    part = tuple(row for row in rows if (shards.rows[row].source_id in kept) == validation)
    return part[: config.overfit] if config.overfit and not validation else part


def _few(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def to_unit_range(video: torch.Tensor) -> torch.Tensor:
    """u8 of any shape to f32 in [-1,1]."""
    return video.float().div_(127.5).sub_(1.0)
