"""One pack: a safetensors file of some entries, each one's tensors side by side under ENTRY/TENSOR.

An entry is read with one call to the system, straight into the tensors where it is wanted. The file's metadata
holds a checksum per entry: XXH3 of 64 bits, which took 0.7 ms of processor time for 5 MB where CRC-32 took 2.3 ms.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np
import torch
import xxhash

DTYPES = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
FILL = "fill"  # a tensor that rounds an entry's length up
Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Spec:
    """What a stored tensor is."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry lies: from byte ``begin`` of a file these tensors, in this order, and their checksum."""

    path: Path
    begin: int
    checksum: int
    specs: tuple[Spec, ...]

    def spec(self, name: str) -> Spec | None:
        """Of one of its tensors; None where it has none of that name."""
        return next((spec for spec in self.specs if spec.name == name), None)


class PackFile:
    """A pack that is open for reading, by threads and forked processes at once; closed with the last one."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        finalize(self, os.close, self._handle)

    def read(self, place: Place, into: Tensors, check: bool) -> dict[str, torch.Tensor]:
        """The tensors of an entry: those ``into`` which it is read, contiguous and as stored, and new ones for the
        rest.

        Raises:
            ValueError: the bytes are not there, or, where it is asked, not those of the checksum.
        """
        found = _rooms(place.specs, into)
        views = [_bytes(found[spec.name]) for spec in place.specs if spec.num_bytes]
        self._fill(list(views), place.begin)
        if check and _checksum(views) != place.checksum:
            raise ValueError("its checksum differs")
        found.pop(FILL, None)
        return found

    def _fill(self, views: list[Any], at: int) -> None:
        """Bytes from ``at`` on, as many as the views hold."""
        while views:
            count = os.preadv(self._handle, views, at)
            if not count:
                raise ValueError("its end is missing")
            at += count
            while views and count >= len(views[0]):
                count -= len(views.pop(0))
            if count:  # a call may give less than all
                views[0] = views[0][count:]


def _rooms(specs: tuple[Spec, ...], into: Tensors) -> dict[str, torch.Tensor]:
    """Where each tensor is read to; those that ``into`` does not name share new memory, wide types first."""
    new = torch.empty(sum(spec.num_bytes for spec in specs if spec.name not in into), dtype=torch.uint8)
    found, at = {}, 0
    for spec in specs:
        given = into.get(spec.name)
        if given is None:
            end = at + spec.num_bytes
            found[spec.name] = new[at:end].view(spec.dtype).view(spec.shape)
            at = end
        else:
            assert given.is_contiguous() and (given.dtype, tuple(given.shape)) == (spec.dtype, spec.shape)
            found[spec.name] = given
    return found


def _bytes(value: torch.Tensor) -> Any:
    """u8[n] over the same memory, as numpy has it."""
    if not value.numel():  # has strides that cannot be viewed
        return np.empty(0, np.uint8)
    return value.detach().reshape(-1).view(torch.uint8).numpy()


def _checksum(views: list[Any]) -> int:
    digest = xxhash.xxh3_64()
    for view in views:
        digest.update(view)
    return digest.intdigest()


def packed(entries: Mapping[str, Tensors]) -> Iterator[bytes]:
    """The parts of a pack. In an entry wide types come first and its length is filled to 8 bytes, so that every
    tensor lies where its type may be read in place."""
    header: dict[str, object] = {}
    checksums, parts, at = {}, [], 0
    for entry, tensors in entries.items():
        assert "/" not in entry
        ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
        length = sum(value.numel() * value.element_size() for value in tensors.values())
        ordered.append((FILL, torch.zeros(-length % 8, dtype=torch.uint8)))
        views = [_bytes(value.cpu().contiguous()) for _, value in ordered]
        for (name, value), view in zip(ordered, views, strict=True):
            header[f"{entry}/{name}"] = {
                "dtype": NAMES[value.dtype],
                "shape": list(value.shape),
                "data_offsets": [at, at + len(view)],
            }
            at += len(view)
        checksums[entry] = f"{_checksum(views):016x}"
        parts += views
    text = json.dumps({"__metadata__": checksums, **header}).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text))
    yield text
    yield from (part.tobytes() for part in parts)


def places(path: Path) -> dict[str, Place]:
    """Where the entries of a pack lie; raises ValueError or KeyError for a file that is not whole."""
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8).ljust(8, b"\xff"))
        size = os.fstat(stream.fileno()).st_size
        if length > size:
            raise ValueError("its beginning is missing")
        header = json.loads(stream.read(length))
    first = last = 8 + length
    checksums = header.pop("__metadata__")
    begins: dict[str, int] = {}
    specs: dict[str, list[Spec]] = {entry: [] for entry in checksums}
    for name, said in header.items():  # in the file's order
        entry, _, tensor = name.partition("/")
        begin, end = said["data_offsets"]
        begins.setdefault(entry, first + begin)
        specs[entry].append(_spec(tensor, said["dtype"], tuple(said["shape"])))
        last = max(last, first + end)
    if size != last:
        raise ValueError("its end is missing")
    return {
        entry: Place(path, begins[entry], int(checksums[entry], 16), tuple(some))
        for entry, some in specs.items()
    }


@lru_cache(maxsize=65536)
def _spec(name: str, dtype: str, shape: tuple[int, ...]) -> Spec:
    """One for all that are alike: a large corpus has a million."""
    return Spec(name, DTYPES[dtype], shape, prod(shape) * DTYPES[dtype].itemsize)
