"""From a run's checkpoint to a folder that anybody can load: transformer, LoRA, identity network and bank.

What was trained is put into a model, saved, loaded again, and both are asked the same question on a real batch;
an export whose answer differs is never committed (a likeness that is good in training and lost after export is
a common complaint about trainers).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from pipeline import model as models
from pipeline.identity.bank import IdentityBank
from pipeline.model import Model
from pipeline.training.checkpoints import to_disk

Ask = Callable[[Model], Mapping[str, torch.Tensor]]
"""Puts a question to a model and returns its answer, the same for an equal model."""


def export(model: Model, bank: IdentityBank, ask: Ask, folder: Path) -> None:
    """Write model and bank to ``folder``, checked, then renamed into place; an export that is there is replaced.

    Raises:
        RuntimeError: the model loaded from the export answers differently.
    """
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    models.save(model, aside)
    bank.save(aside / "bank")
    difference = largest_difference(ask(model), ask(models.load(aside)))
    if not difference <= 0:  # also where it is NaN
        raise RuntimeError(
            f"the export in {aside} answers differently from the trained model, by {difference:.3g}"
        )
    to_disk([*aside.rglob("*"), aside])
    if folder.exists():
        shutil.rmtree(folder)
    aside.rename(folder)
    to_disk([folder.parent])


def largest_difference(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> float:
    """Largest absolute difference of two sets of named tensors; NaN where only one of them is NaN."""
    assert a.keys() == b.keys()
    gaps = [torch.where(a[name].isnan() & b[name].isnan(), 0.0, (a[name] - b[name]).abs()) for name in a]
    return float(torch.stack([gap.max() for gap in gaps]).max())


def load_trained(model: torch.nn.Module, trained: Mapping[str, torch.Tensor]) -> None:
    """Put trained values, by name, into a module whose other parameters are frozen.

    Raises:
        RuntimeError: a trainable parameter has no value, or a value no parameter.
    """
    wanted = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    missing = sorted(wanted - trained.keys())
    unknown = model.load_state_dict(dict(trained), strict=False).unexpected_keys
    if missing or unknown:
        raise RuntimeError(
            f"checkpoint and model differ: no value for {missing[:5]}, no parameter for {unknown[:5]}"
        )
