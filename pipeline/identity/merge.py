"""Several banks as one: what may be put together, and under which names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from data_prep.records import InputError
from pipeline.identity.bank import TENSORS, TEXTS, BankEntry, IdentityBank

ANEW = "give --network RUN to make all tokens anew with that run's network"


def merge(banks: Mapping[Path, IdentityBank], renames: Mapping[str, str]) -> IdentityBank:
    """All characters of several banks, in their order; a character that several hold alike is taken once.

    Args:
        banks: folder → bank; the folders are only named in messages.
        renames: name → new name, for the character of the last bank that holds one of that name.

    Raises:
        InputError: entries of different face packs, token shapes or networks, or of an unknown network; a name
            that would stand for two characters; a rename of nobody.
    """
    renamed = _renamed(banks, renames)
    check_alike(renamed)
    found: dict[str, tuple[Path, BankEntry]] = {}
    for folder, entry in renamed:
        if entry.name not in found:
            found[entry.name] = folder, entry
        elif not same(found[entry.name][1], entry):
            raise InputError(
                f"{entry.name!r} stands for one character in {found[entry.name][0]} and for another in {folder}; "
                f"give --rename {entry.name}=NEW for the one in the last bank"
            )
    return IdentityBank(entry for _, entry in found.values())


def check_alike(entries: Sequence[tuple[Path, BankEntry]]) -> None:
    """Raise InputError, which names two banks, where entries cannot stand in one cast."""
    facets: tuple[tuple[str, Callable[[BankEntry], str], str], ...] = (
        ("face packs", lambda entry: entry.pack, "enrol everybody with one pack"),
        ("networks that made the tokens", lambda entry: entry.network, ANEW),
        ("token shapes", lambda entry: "x".join(map(str, entry.tokens.shape)), ANEW),
    )
    for what, of, remedy in facets:
        seen: dict[str, Path] = {}
        for folder, entry in entries:
            seen.setdefault(of(entry), folder)
        if len(seen) > 1:
            which = "; ".join(f"{value or 'not said'} in {folder}" for value, folder in seen.items())
            raise InputError(f"the banks have different {what}: {which}; {remedy}")
    for folder, entry in entries:
        if not entry.network:
            raise InputError(f"{folder} does not say which network made its tokens; {ANEW}")


def same(a: BankEntry, b: BankEntry) -> bool:
    """Whether two entries are one, to the last bit."""
    texts = all(getattr(a, name) == getattr(b, name) for name in TEXTS)
    values = ((getattr(a, name), getattr(b, name)) for name in TENSORS)
    return texts and all(torch.equal(x, y) if x is not None and y is not None else x is y for x, y in values)


def _renamed(banks: Mapping[Path, IdentityBank], renames: Mapping[str, str]) -> list[tuple[Path, BankEntry]]:
    where = {name: folder for folder, bank in banks.items() for name in bank.entries}  # the last that has it
    for name in renames:
        if name not in where:
            raise InputError(
                f"--rename {name}: in none of the banks; they hold {', '.join(where) or 'nobody'}"
            )
    found = []
    for folder, bank in banks.items():
        for name, entry in bank.entries.items():
            new = renames.get(name, name) if where[name] == folder else name
            found.append((folder, replace(entry, name=new)))
    return found
