"""What a family's frozen parts make of each sample, kept on disk: latents, masks over their cells, and text.

Text and video are kept apart, as a text belongs to a sample and latents to one cut of it. What is kept carries,
in the folder's name, the family with its fingerprint and, of latents, the stored precision, and in its own name the
sample's sha256 and the cut. Text is lossless: stored without the rows of zeros that pad it, in bf16 where that
changes no value. Masks are lossless: counts of pixels per cell, within the box that holds all of a character.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import numpy.typing as npt
import torch

from data_prep.records import InputError
from pipeline.batch import Batch, Frozen
from pipeline.config import DataConfig
from pipeline.data.cuts import Cut
from pipeline.data.features import features_folder
from pipeline.data.pack_file import Spec, Tensors
from pipeline.data.packs import PackStore
from pipeline.data.sending import room
from pipeline.families import contract
from pipeline.families.contract import Encoded, LatentGrid

VERSION = "2"  # of how entries are made; another one is another cache
EMPTY = "empty"  # entry of what a dropped caption becomes
STORED = {"fp32": torch.float32, "bf16": torch.bfloat16}
ENCODED = ("latents", "channels", "image")  # fields of contract.Encoded, each kept under its name


@dataclass(frozen=True)
class Cached:
    """A cut of a sample that lies in a cache: the sample's key and sha256, and the cut."""

    cache: FrozenCache
    key: str
    sha256: str
    cut: Cut

    @property
    def name(self) -> str:
        """Of its latents."""
        return latents_name(self.sha256, self.cut)


class FrozenCache:
    """The cached outputs of one family's frozen parts, in the folder of a configuration's features."""

    def __init__(self, config: DataConfig, family: str, fingerprint: str) -> None:
        """``fingerprint``: of the frozen parts (``contract.Frozen``)."""
        folder, key = (
            features_folder(config),
            {"family": family, "fingerprint": fingerprint, "version": VERSION},
        )
        self._dtype = STORED[config.latents_dtype]
        self._empty_text: torch.Tensor | None = None
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

    def read(self, items: Sequence[Cached], num_slots: int) -> tuple[Frozen, tuple[str, ...]]:
        """A batch of cuts, casts padded to ``num_slots``, and their captions; each value is read from the disk into
        its place in the batch.

        Raises:
            KeyError: one is not kept.
            DamagedError: one is and cannot be read.
            InputError: they differ in size.
        """
        whole, coverage = self._latents(items, num_slots)
        text, rows, captions = self._texts([item.sha256 for item in items])
        frozen = Frozen(
            latents=whole["latents"],
            channels=whole.get("channels"),
            image=whole.get("image"),
            coverage=coverage,
            text=text,
            empty=self._empty(),
            text_rows=rows,
        )
        return frozen, captions

    def _latents(
        self, items: Sequence[Cached], num_slots: int
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """What was encoded, each [B,...], and coverage f32[B,N,t,h,w]."""
        specs = self._alike(items)
        whole = {name: room((len(items), *spec.shape), spec.dtype) for name, spec in specs.items()}
        size = specs["latents"].shape[1:]
        coverage = room((len(items), num_slots, *size), torch.float32, zeros=True)
        for row, item in enumerate(items):
            into = {name: value[row] for name, value in whole.items()}
            spread(self.latents.read(item.name, into), coverage[row])
        return whole, coverage

    def _alike(self, items: Sequence[Cached]) -> dict[str, Spec]:
        """What is stored of each of these cuts' videos."""
        first, *rest = (
            {spec.name: spec for spec in self.latents.place(item.name).specs if spec.name in ENCODED}
            for item in items
        )
        for item, other in zip(items[1:], rest, strict=True):
            if other != first:
                raise InputError(
                    f"samples {items[0].key} and {item.key} differ in size: {items[0].cut.name} and "
                    f"{item.cut.name}; give the sizes to train at as data.buckets"
                )
        return first

    def _texts(self, names: Sequence[str]) -> tuple[torch.Tensor, int, tuple[str, ...]]:
        """Texts [B,S',D] with zeros behind shorter ones, of how many rows each is the beginning, and captions."""
        specs = [spec for name in names for spec in self.text.place(name).specs if spec.name == "text"]
        longest, dtype = max(spec.shape[0] for spec in specs), wider([spec.dtype for spec in specs])
        text = room((len(names), longest, specs[0].shape[1]), dtype)
        captions, rows = [], 0
        for row, (name, spec) in enumerate(zip(names, specs, strict=True)):
            mine = text[row, : spec.shape[0]]
            stored = self.text.read(name, {"text": mine} if spec.dtype == dtype else {})
            if stored["text"] is not mine:
                mine.copy_(stored["text"])
            text[row, spec.shape[0] :] = 0
            captions.append(bytes(stored["caption"].numpy()).decode())
            rows = int(stored["rows"])
        return text, rows, tuple(captions)

    def _empty(self) -> torch.Tensor:
        """The empty caption's embedding; read once, as every batch holds it."""
        if self._empty_text is None:
            self._empty_text = self.text.read(EMPTY)["text"]
        return self._empty_text


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
    """What is stored of f32[N,t,h,w]: per character the box of cells that it reaches, i32[N,3,2] half-open, and how
    many pixels of each cell in it are covered, u16, box after box; and f32[t], how many a cell of a frame has."""
    pixels = torch.tensor(
        [grid.pixels**2 * (grid.frames if frame else 1) for frame in range(coverage.shape[1])],
        dtype=torch.float32,
    )
    assert int(pixels.max()) < 2**16, "counts are kept in 16 bits"
    counts = (coverage.cpu().double() * pixels[:, None, None]).round().numpy().astype(np.uint16)
    boxes = np.array([_box(one) for one in counts], np.int32).reshape(-1, 3, 2)
    parts = [one[_slices(box)].ravel() for one, box in zip(counts, boxes, strict=True)]
    return {
        "mask": torch.from_numpy(np.concatenate([np.zeros(0, np.uint16), *parts])),
        "mask_boxes": torch.from_numpy(boxes),
        "mask_pixels": pixels,
    }


def spread(entry: Tensors, coverage: torch.Tensor) -> None:
    """Writes what ``mask_entry`` made of some masks f32[N,t,h,w] over the first N of zeros f32[N',t,h,w]."""
    counts, pixels, out = entry["mask"].numpy(), entry["mask_pixels"].numpy(), coverage.numpy()
    at = 0
    for slot, box in enumerate(entry["mask_boxes"].numpy()):
        cells = out[slot][_slices(box)]
        np.divide(
            counts[at : at + cells.size].reshape(cells.shape), pixels[slice(*box[0]), None, None], out=cells
        )
        at += cells.size


def _box(counts: npt.NDArray[np.uint16]) -> list[tuple[int, int]]:
    """The smallest box [3,2] of [t,h,w] outside of which all is zero."""
    where = np.nonzero(counts)
    return [(int(axis.min()), int(axis.max()) + 1) if len(axis) else (0, 0) for axis in where]


def _slices(box: npt.NDArray[np.int32]) -> tuple[slice, ...]:
    return tuple(slice(begin, end) for begin, end in box.tolist())


def wider(dtypes: Sequence[torch.dtype]) -> torch.dtype:
    """The type that holds the values of all of these: a text that bf16 holds may be beside one that it does not."""
    return reduce(torch.promote_types, dtypes)


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
