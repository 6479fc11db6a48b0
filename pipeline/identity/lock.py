"""Locked characters: their tokens stay bit for bit what they were, and training teaches the network to read them.

Tokens are what the reference encoder makes, so that training it moves everybody in the bank. Those of a locked
character are taken from the bank of the run that this one starts from, in every pass, in place of the encoder's;
what is trained (attention, slots, transformer, encoder for the others) learns around them. A lock lasts: whoever
is locked in that bank stays so, until ``castbank bank merge --network`` makes all tokens anew. The idea of a
reference that stays fixed is that of Gen-4.5 as it is described; the mechanism is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from data_prep.records import InputError
from pipeline.identity.bank import IdentityBank


def locked_names(bank: IdentityBank | None, asked: Sequence[str]) -> tuple[str, ...]:
    """Who is locked in a run that starts from a bank: those asked for, and who is in it already.

    Raises:
        InputError: a name that is not in the bank, or names without one.
    """
    if bank is None:
        if asked:
            raise InputError(
                f"model.adapter.lock=[{','.join(asked)}]: a lock keeps tokens of an earlier run; give base=EXPORT"
            )
        return ()
    for name in asked:
        if name not in bank.entries:
            known = ", ".join(bank.entries) or "nobody"
            raise InputError(f"model.adapter.lock: {name!r} is not in the base's bank; it holds {known}")
    return tuple(name for name, entry in bank.entries.items() if entry.locked or name in asked)


def locked_tokens(
    bank: IdentityBank | None, asked: Sequence[str], names: Mapping[str, str]
) -> dict[str, torch.Tensor]:
    """Character id, as samples have it, to the tokens f32[K,C] that it keeps; names: id to the bank's name, where
    that is not the id."""
    if bank is None:
        return {}
    ids = {name: character for character, name in names.items()}
    return {ids.get(name, name): bank.entry(name).tokens for name in locked_names(bank, asked)}


def with_locked(
    tokens: torch.Tensor, cast: Sequence[Sequence[str]], locked: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """Tokens f32[B,N,K,C] with those of locked characters in place of the encoder's; cast: ids of each sample by
    slot."""
    if not locked:
        return tokens
    kept = torch.zeros_like(tokens)
    is_locked = torch.zeros(*tokens.shape[:2], 1, 1, dtype=torch.bool, device=tokens.device)
    for b, characters in enumerate(cast):
        for n, character in enumerate(characters):
            if character in locked:
                kept[b, n], is_locked[b, n] = locked[character].to(tokens), True
    return torch.where(is_locked, kept, tokens)
