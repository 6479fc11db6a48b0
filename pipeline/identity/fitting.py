"""Opening a bank for a model, and whether it fits: tokens mean something to the network that made them alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.records import InputError
from pipeline.identity.bank import IdentityBank, find_bank
from pipeline.identity.tokens import fingerprint

if TYPE_CHECKING:
    from pipeline.model import Model


def open_bank(model: Model, export: Path, bank: Path | None) -> IdentityBank:
    """The bank of the model's export, or another that fits; raises InputError where there is none, or none fits."""
    own = IdentityBank.load(export / "bank") if bank is None or (export / "bank").is_dir() else None
    place = export / "bank" if bank is None else find_bank(bank)
    loaded = IdentityBank.load(place)
    check_fits(loaded, model, place, own)
    return loaded


def check_fits(bank: IdentityBank, model: Model, place: Path, own: IdentityBank | None = None) -> None:
    """Raise InputError where ``model`` cannot read the bank of ``place``: its references are another recogniser's
    than those of the model's ``own`` bank, or its tokens another network's, as that of another family is."""
    _check_recogniser(bank, model, place, packs_of(own) if own is not None else set())
    family, encoder = model.config.family.name, model.identity.encoder
    made_by = {entry.network for entry in bank.entries.values()} - {""}  # empty: of an earlier version
    shape = (model.config.identity.tokens_per_character, model.config.identity.width)
    odd = [entry for entry in bank.entries.values() if tuple(entry.tokens.shape) != shape]
    if odd or made_by - {fingerprint(encoder)}:
        what = f", {tuple(odd[0].tokens.shape)} where this one reads {shape}" if odd else ""
        raise InputError(
            f"the tokens in {place} were made by another network than this model's (family {family}){what}; a bank "
            "is of one run, and so of one family: castbank bank merge --network RUN makes its tokens anew"
        )


def packs_of(bank: IdentityBank) -> set[str]:
    """The face packs of a bank's references, where it says so."""
    return {entry.pack for entry in bank.entries.values()} - {""}


def _check_recogniser(bank: IdentityBank, model: Model, place: Path, trained_with: set[str]) -> None:
    width = model.config.identity.embedding_dim
    for entry in bank.entries.values():
        other = entry.pack and trained_with and entry.pack not in trained_with
        if entry.references.shape[1] != width or other:
            took = f"{'/'.join(sorted(trained_with)) or 'its own'} ({width} numbers)"
            raise InputError(
                f"bank {place}: the references of {entry.name!r} are of face pack {entry.pack or 'not named'} "
                f"({entry.references.shape[1]} numbers), this model was trained with {took}; enrol everybody with "
                "the run's own pack"
            )
