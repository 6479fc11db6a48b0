"""A model and its bank from what a person has: a run, or a published model with a bank of a run and a LoRA."""

from __future__ import annotations

from pathlib import Path

import torch

from data_prep.records import InputError
from pipeline import model as models
from pipeline.config import GenerateConfig
from pipeline.exports.export import last_seen
from pipeline.generate import LoadedRun
from pipeline.identity.bank import find_bank
from pipeline.identity.fitting import open_bank

MODEL = "model.yaml"


def open_model(
    base: str | Path,
    bank: str | Path | None = None,
    lora: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
) -> LoadedRun:
    """A model that can generate, in eval mode.

    Args:
        base: a run's folder or its export; or a published model in diffusers' layout, by folder or hub id.
        bank: a bank; of a published model, the run or export that was trained on it, which has the network too.
        lora: folder of a LoRA, instead of the one that base or bank has.
        dtype: of the transformer, but for what its class keeps in fp32, and of the identity network.

    Raises:
        InputError: there is no model or no bank, a LoRA is none, or bank and model are not of each other.
    """
    if lora is not None and not (Path(lora) / "adapter_config.json").is_file():
        raise InputError(
            f"lora: no adapter_config.json in {str(lora)!r}; give a folder in peft's layout, as RUN/export/lora "
            "or castbank export --to peft"
        )
    export, published = export_of(Path(base)), ""
    if export is None:
        published, export = str(base), _network_of(str(base), bank)
    where = None if lora is None else Path(lora)
    model = models.load(export, dtype, published, where).eval()
    model.identity.to(dtype)
    return LoadedRun(export, model, open_bank(model, export, None if bank is None else Path(bank)))


def usual_settings(export: Path) -> GenerateConfig:
    """What is drawn where nothing else is asked for: at the frames and size that training has seen."""
    seen = last_seen(export)
    if seen is None:
        return GenerateConfig()
    return GenerateConfig(
        num_frames=seen.num_frames, height_px=seen.height_px, width_px=seen.width_px, fps=seen.fps
    )


def export_of(folder: Path) -> Path | None:
    """The export in a run's folder, or that is the folder; None where neither is."""
    return next((place for place in (folder / "export", folder) if (place / MODEL).is_file()), None)


def _network_of(base: str, bank: str | Path | None) -> Path:
    """The export that a bank lies in, which has the identity network for a published model."""
    if bank is None:
        raise InputError(
            f"base: {base!r} is no run or export, and a published model knows nobody: give bank, a run or export "
            "that was trained on it"
        )
    place = find_bank(Path(bank))
    export = export_of(Path(bank)) or export_of(place.parent)
    if export is None:
        raise InputError(
            f"bank: {str(bank)!r} holds characters, but not the network that reads them; give the run, or its "
            f"export, that was trained on {base!r}"
        )
    return export
