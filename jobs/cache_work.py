"""What a worker of ``castbank cache`` does: one chunk of one kind, on disk when it is done."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.config import TrainConfig

if TYPE_CHECKING:
    import torch

    from pipeline.data.cuts import Cut
    from pipeline.data.features import Recogniser
    from pipeline.data.frozen import FrozenCache
    from pipeline.data.samples import Samples
    from pipeline.families.contract import Frozen

Kind = Literal["text", "faces", "latents"]
TEXTS = 16  # captions that are embedded at once


@dataclass(frozen=True)
class Asked:
    """What all chunks have in common. parts: folder of the family's frozen parts, or None where they come from
    elsewhere; batch: videos that are encoded at once."""

    config: TrainConfig
    recogniser: Recogniser
    parts: Path | None
    batch: int


@dataclass(frozen=True)
class Chunk:
    """asked: a pickled ``Asked``, as bytes because what is opened for it is kept by it; items: names in the cache,
    each with a (sample, variant) that it is of, sample -1 being the empty caption."""

    asked: bytes
    kind: Kind
    items: tuple[tuple[str, int, int], ...]


class Opened:
    """What a worker has opened."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    @cached_property
    def samples(self) -> Samples:
        from pipeline.data.samples import Samples

        samples = Samples(self._asked.config.data, self._asked.config.seed, self._asked.recogniser)
        samples.know_outlines()
        return samples

    @cached_property
    def frozen(self) -> Frozen:
        """The family's frozen parts, which load themselves when they are used."""
        from pipeline.families import family_type

        family = self._asked.config.model.family
        return family_type(family.name).frozen(family, self._asked.parts)

    @cached_property
    def cache(self) -> FrozenCache:
        from pipeline.data.frozen import FrozenCache

        config = self._asked.config
        return FrozenCache(config.data, config.model.family.name, self.frozen.fingerprint())

    def text(self, chunk: Chunk) -> None:
        """Embed captions."""
        from pipeline.data.frozen import EMPTY

        captions = [
            "" if name == EMPTY else self.samples.read(index).caption for name, index, _ in chunk.items
        ]
        kept = []
        for at in range(0, len(captions), TEXTS):
            some = captions[at : at + TEXTS]
            rows = self.frozen.embed_text(some).cpu()
            names = [name for name, *_ in chunk.items[at : at + TEXTS]]
            kept += list(zip(names, some, rows, strict=True))
        self.cache.keep_text(kept)

    def faces(self, chunk: Chunk) -> None:
        """Embed the faces of cuts."""
        self.samples.keep_features([(index, variant) for _, index, variant in chunk.items])

    def latents(self, chunk: Chunk) -> None:
        """Encode cuts; those of one size together."""
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        for some in self._together(chunk):
            names, videos, coverage = zip(*(self._cut(*item) for item in some), strict=True)
            encoded = self.frozen.encode(torch.stack(videos).to(device))
            self.cache.keep_latents(names, encoded, coverage, self.frozen.grid)

    def _together(self, chunk: Chunk) -> Iterator[list[tuple[str, int, int]]]:
        """Items of one size, as many as are encoded at once."""

        def size(item: tuple[str, int, int]) -> tuple[int, int, int]:
            cut: Cut = self.samples.cut(item[1], item[2])
            return cut.num_frames, cut.height_px, cut.width_px

        for _, alike in groupby(sorted(chunk.items, key=size), key=size):
            items = list(alike)
            for at in range(0, len(items), self._asked.batch):
                yield items[at : at + self._asked.batch]

    def _cut(self, name: str, index: int, variant: int) -> tuple[str, torch.Tensor, torch.Tensor]:
        """Its name, its video f32[3,T,H,W] in [-1,1] and its coverage f32[N,t,h,w]."""
        import torch

        from pipeline.data.samples import decoded, to_unit_range

        sample = self.samples.read(index)
        video, label_map = decoded(sample, self.samples.cut(index, variant))
        coverage = self.frozen.grid.coverage(torch.from_numpy(label_map)[None], len(sample.note.cast))
        return name, to_unit_range(torch.from_numpy(video)).permute(3, 0, 1, 2), coverage[0]


def compute(chunk: Chunk) -> None:
    """See to it that all of a chunk is on disk."""
    import torch

    opened = _opened(chunk.asked)
    work: Callable[[Chunk], None] = getattr(opened, chunk.kind)
    with torch.no_grad():
        work(chunk)


@lru_cache(maxsize=1)
def _opened(asked: bytes) -> Opened:
    """What is opened, once per process: reading the index of a large corpus takes longer than a chunk."""
    return Opened(pickle.loads(asked))
