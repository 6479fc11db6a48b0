"""Which banks go together, and under which names; everything else is refused with the way out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data_prep.records import InputError
from pipeline.identity.bank import BankEntry, IdentityBank
from pipeline.identity.merge import merge

A, B, C = Path("a"), Path("b"), Path("c")


def entry(name: str, seed: int = 0, **changes: object) -> BankEntry:
    generator = torch.Generator().manual_seed(seed)
    fields: dict[str, object] = {
        "tokens": torch.randn(2, 8, generator=generator),
        "references": torch.randn(3, 16, generator=generator),
        "pack": "embedded",
        "network": "n1",
    }
    return BankEntry(name=name, **{**fields, **changes})  # type: ignore[arg-type]


def test_all_characters_in_order() -> None:
    merged = merge(
        {A: IdentityBank([entry("anna"), entry("ben", 1)]), B: IdentityBank([entry("carl", 2)])}, {}
    )
    assert list(merged.entries) == ["anna", "ben", "carl"]
    assert torch.equal(merged.entry("carl").tokens, entry("carl", 2).tokens)


def test_a_character_that_both_hold_alike_is_taken_once() -> None:
    merged = merge({A: IdentityBank([entry("anna")]), B: IdentityBank([entry("anna"), entry("ben", 1)])}, {})
    assert list(merged.entries) == ["anna", "ben"]


def test_two_of_one_name_are_named_with_their_banks_and_the_way_out() -> None:
    banks = {A: IdentityBank([entry("anna")]), B: IdentityBank([entry("anna", 1)])}
    with pytest.raises(InputError, match=r"'anna' .* in a and for another in b; give --rename anna=NEW"):
        merge(banks, {})
    merged = merge(banks, {"anna": "anna_2"})
    assert list(merged.entries) == ["anna", "anna_2"]
    assert torch.equal(merged.entry("anna_2").tokens, entry("anna", 1).tokens)


def test_a_rename_is_of_the_last_bank_that_has_the_name() -> None:
    banks = {A: IdentityBank([entry("anna")]), B: IdentityBank([entry("ben", 1)])}
    assert list(merge(banks, {"anna": "ben_2"}).entries) == ["ben_2", "ben"]
    with pytest.raises(InputError, match="--rename bob: in none of the banks; they hold anna, ben"):
        merge(banks, {"bob": "x"})
    with pytest.raises(InputError, match="'ben' stands for one character"):
        merge(banks, {"anna": "ben"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pack": "embedded_alt"}, "different face packs: embedded in a; embedded_alt in b; enrol everybody"),
        ({"network": "n2"}, "different networks that made the tokens: n1 in a; n2 in b; give --network RUN"),
        (
            {"network": ""},
            "different networks that made the tokens: n1 in a; not said in b; give --network RUN",
        ),
        ({"tokens": torch.zeros(4, 8)}, "different token shapes: 2x8 in a; 4x8 in b; give --network RUN"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, object], message: str) -> None:
    banks = {A: IdentityBank([entry("anna")]), B: IdentityBank([entry("ben", 1, **changes)])}
    with pytest.raises(InputError, match=message):
        merge(banks, {})


def test_banks_that_do_not_say_their_network_are_not_taken_for_alike() -> None:
    banks = {folder: IdentityBank([entry(name, network="")]) for folder, name in ((A, "anna"), (B, "ben"))}
    with pytest.raises(InputError, match="a does not say which network made its tokens; give --network RUN"):
        merge(banks, {})
