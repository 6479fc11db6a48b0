"""How a batch travels from a loading process to its rank: what is large is written into shared memory at once, what
is small goes along in the message, as each piece of shared memory costs both processes a handshake."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

from pipeline.batch import Batch, mapped

SMALL_BYTES = 1 << 16  # as much as a pipe holds


def room(shape: Sequence[int], dtype: torch.dtype, zeros: bool = False) -> torch.Tensor:
    """A tensor of a batch that is to be filled, or, with ``zeros``, filled in part."""
    num_bytes = prod(shape) * dtype.itemsize
    if get_worker_info() is None or num_bytes <= SMALL_BYTES:
        make = (
            np.zeros if zeros else np.empty
        )  # ask for huge pages, and zeros of the system, where torch does not
        return torch.from_numpy(make(num_bytes, np.uint8)).view(dtype).view(tuple(shape))
    shared: Any = torch.UntypedStorage
    empty = torch.empty(0, dtype=dtype)
    return empty.set_(shared._new_shared(num_bytes)).view(
        tuple(shape)
    )  # zeros; torch's collate makes its room so


def sent(batch: Batch) -> Batch:
    """The batch as a loading process hands it over; unpickled, it is a plain one."""
    return batch if get_worker_info() is None else mapped(batch, _light)


class _Light:
    """A small tensor that is pickled by value."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def __reduce__(self) -> tuple[Any, ...]:
        data = self._tensor.reshape(-1).view(torch.uint8).numpy()
        return _tensor, (data, self._tensor.dtype, tuple(self._tensor.shape))


def _tensor(data: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(data).view(dtype).view(shape)


def _light(tensor: torch.Tensor) -> Any:
    return _Light(tensor) if tensor.numel() * tensor.element_size() <= SMALL_BYTES else tensor
