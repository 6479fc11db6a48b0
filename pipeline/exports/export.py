"""From a run's checkpoint to a folder that anybody can load: transformer, LoRA, identity network and bank.

What was trained is put into a model, saved, loaded again, and both are asked the same question on a real batch;
an export whose answer differs is never committed (a likeness that is good in training and lost after export is
a common complaint about trainers).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import yaml

from pipeline import model as models
from pipeline.identity.bank import IdentityBank
from pipeline.model import Model
from pipeline.training.checkpoints import to_disk

SEEN = "seen.yaml"
Ask = Callable[[Model], Mapping[str, torch.Tensor]]
"""Puts a question to a model and returns its answer, the same for an equal model."""


@dataclass(frozen=True)
class Seen:
    """The videos that a model was trained on, or most of them; what is drawn where nothing else is asked for."""

    num_frames: int
    height_px: int
    width_px: int
    fps: float


def last_seen(folder: Path) -> Seen | None:
    """Of a run's folder or its export; None where that is not known, as of an earlier version."""
    for path in (folder / "export" / SEEN, folder / SEEN):
        if path.is_file():
            return Seen(**yaml.safe_load(path.read_text(encoding="utf-8")))
    return None


def export(model: Model, bank: IdentityBank, ask: Ask, folder: Path, seen: Seen | None = None) -> None:
    """Write model and bank to ``folder``, checked, then renamed into place; an export that is there is replaced.
    What training has ``seen`` goes with them.

    Raises:
        RuntimeError: the model loaded from the export answers differently.
    """
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    models.save(model, aside)
    bank.save(aside / "bank")
    if seen is not None:
        (aside / SEEN).write_text(yaml.safe_dump(asdict(seen), sort_keys=False), encoding="utf-8")
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
