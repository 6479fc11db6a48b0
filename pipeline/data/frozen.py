"""What a family's frozen parts make of each sample, kept on disk: latents, masks over their cells, and text.

Text and video are kept apart, as a text belongs to a sample and latents to one cut of it. What is kept carries,
in the folder's name, the family with its fingerprint and, of latents, the stored precision, and in its own name the
sample's sha256 and the cut. Text is lossless: stored without the rows of zeros that pad it, in bf16 where that
changes no value. Masks are lossless: counts of pixels per cell.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from pipeline.batch import Batch, Frozen
from pipeline.config import DataConfig
from pipeline.data.cuts import Cut
from pipeline.data.features import features_folder
from pipeline.data.packs import PackStore, Tensors
from pipeline.families import contract
from pipeline.families.contract import Encoded, LatentGrid

VERSION = "1"  # of how entries are made; another one is another cache
EMPTY = "empty"  # entry of what a dropped caption becomes
STORED = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class FrozenItem:
    """Of one cut of a sample.

    latents: [C,t,h,w], channels: [C',t,h,w], image: [S,D], as in ``contract.Encoded``, in the stored precision;
    coverage: f32[N,t,h,w]; text: [S',D], of ``text_rows`` rows, the rest of them zeros; empty: the same of the
    empty caption; caption: what the text is of.
    """

    latents: torch.Tensor
    channels: torch.Tensor | None
    image: torch.Tensor | None
    coverage: torch.Tensor
    text: torch.Tensor
    empty: torch.Tensor
    text_rows: int
    caption: str


class FrozenCache:
    """The cached outputs of one family's frozen parts, in the folder of a configuration's features."""

    def __init__(self, config: DataConfig, family: str, fingerprint: str) -> None:
        """``fingerprint``: of the frozen parts (``contract.Frozen``)."""
        folder, key = (
            features_folder(config),
            {"family": family, "fingerprint": fingerprint, "version": VERSION},
        )
        self._dtype = STORED[config.latents_dtype]
        self.text = PackStore(folder, "text", key)
        self.latents = PackStore(folder, "latents", {**key, "dtype": config.latents_dtype})

    def keep_text(self, texts: Sequence[tuple[str, str, torch.Tensor]]) -> None:
        """Adds texts: entry, caption and its embedding [S,D]."""
        self.text.write({name: text_entry(caption, text) for name, caption, text in texts})

    def keep_latents(
        self, names: Sequence[str], encoded: Encoded, coverage: Sequence[torch.Tensor], grid: LatentGrid
    ) -> None:
        """Adds what was made of B cuts. names: of the entries; coverage: of each, f32[N,t,h,w]."""
        entries: dict[str, Tensors] = {}
        for row, name in enumerate(names):
            entry = {"latents": encoded.latents[row].to(self._dtype), **mask_entry(coverage[row], grid)}
            for field, value in (("channels", encoded.channels), ("image", encoded.image)):
                if value is not None:
                    entry[field] = value[row].to(self._dtype)
            entries[name] = entry
        self.latents.write(entries)

    def read(self, sha256: str, cut: Cut) -> FrozenItem:
        """Of one cut of the sample with this hash; raises KeyError where it is not kept, DamagedError where it is
        and cannot be read."""
        video, text = self.latents.read(latents_name(sha256, cut)), self.text.read(sha256)
        return FrozenItem(
            latents=video["latents"],
            channels=video.get("channels"),
            image=video.get("image"),
            coverage=mask_of(video),
            text=text["text"],
            empty=self.text.read(EMPTY)["text"],
            text_rows=int(text["rows"]),
            caption=bytes(text["caption"].numpy()).decode(),
        )


def latents_name(sha256: str, cut: Cut) -> str:
    """Of an entry of latents."""
    return f"{sha256}.{cut.name}"


def text_entry(caption: str, text: torch.Tensor) -> Tensors:
    """What is stored of an embedding [S,D] of a caption."""
    used = text.any(1).nonzero()
    kept = text[: int(used[-1]) + 1 if len(used) else 0].cpu()
    half = kept.bfloat16()
    words = torch.from_numpy(np.frombuffer(caption.encode(), np.uint8).copy())
    return {
        "text": half if torch.equal(half.to(kept.dtype), kept) else kept,
        "rows": torch.tensor(len(text)),
        "caption": words,
    }


def mask_entry(coverage: torch.Tensor, grid: LatentGrid) -> dict[str, torch.Tensor]:
    """What is stored of f32[N,t,h,w]: how many pixels of each cell are covered, u16, deflated."""
    n, t, h, w = coverage.shape
    pixels = torch.tensor(
        [grid.pixels**2 * (grid.frames if frame else 1) for frame in range(t)], dtype=torch.int32
    )
    counts = (coverage.cpu().double() * pixels[:, None, None]).round()
    assert int(pixels.max()) < 2**16, "counts are kept in 16 bits"
    data = zlib.compress(counts.numpy().astype("<u2").tobytes(), 1)
    return {
        "mask": torch.from_numpy(np.frombuffer(data, np.uint8).copy()),
        "mask_pixels": pixels,
        "mask_shape": torch.tensor([n, t, h, w], dtype=torch.int32),
    }


def mask_of(entry: Tensors) -> torch.Tensor:
    """f32[N,t,h,w] back from ``mask_entry``."""
    counts = np.frombuffer(zlib.decompress(entry["mask"].numpy().tobytes()), "<u2").astype(np.float32)
    shape = entry["mask_shape"].tolist()
    return torch.from_numpy(counts).view(shape) / entry["mask_pixels"][:, None, None]


def stacked(items: Sequence[FrozenItem], num_slots: int) -> Frozen:
    """A batch of them; casts are padded to ``num_slots``."""

    def together(values: list[torch.Tensor | None]) -> torch.Tensor | None:
        there = [value for value in values if value is not None]
        return torch.stack(there) if there else None

    longest = max(len(item.text) for item in items)
    return Frozen(
        latents=torch.stack([item.latents for item in items]),
        channels=together([item.channels for item in items]),
        image=together([item.image for item in items]),
        coverage=torch.stack([_grown(item.coverage, num_slots) for item in items]),
        text=torch.stack([_grown(item.text, longest) for item in items]),
        empty=items[0].empty,
        text_rows=items[0].text_rows,
    )


@torch.no_grad()
def encoded(batch: Batch, parts: contract.Frozen, device: torch.device) -> Batch:
    """The batch with what the frozen parts make of it in place of its video: who asks about it often encodes once.

    The label map stays. Raises InputError for a size that the family cannot take.
    """
    assert batch.video is not None and batch.label_map is not None
    made, text = parts.encode(batch.video.to(device)), parts.embed_text(batch.captions)
    frozen = Frozen(
        latents=made.latents.contiguous(),  # as from a cache: sums are taken in its order
        channels=made.channels,
        image=made.image,
        coverage=parts.grid.coverage(batch.label_map, batch.cast_mask.shape[1]),
        text=text,
        empty=parts.embed_text([""])[0],
        text_rows=text.shape[1],
    )
    return replace(batch, video=None, frozen=frozen.to("cpu"))


def _grown(value: torch.Tensor, length: int) -> torch.Tensor:
    """[n,...] with zeros behind it to [length,...]."""
    missing = value.new_zeros(length - len(value), *value.shape[1:])
    return torch.cat([value, missing]) if len(missing) else value
