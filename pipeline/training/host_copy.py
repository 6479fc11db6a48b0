"""A copy of a state dictionary in host memory, which is written while training goes on."""

from __future__ import annotations

import copy
from typing import Any

import torch


def to_host(value: Any) -> Any:
    """A copy of a state dictionary that training cannot change: tensors in host memory, a view alone."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        copied = copy.copy(value)  # keeps the kind, and an OrderedDict's attributes
        copied.update({key: to_host(item) for key, item in value.items()})
        return copied
    if type(value) in (list, tuple):
        return type(value)(to_host(item) for item in value)
    return copy.deepcopy(value)
