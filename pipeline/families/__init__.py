"""The families by name. A new one is one file that satisfies ``contract.Family``, one line here and one test."""

from __future__ import annotations

from data_prep.records import InputError
from pipeline.families.cogvideox import CogVideoXFamily
from pipeline.families.contract import Family
from pipeline.families.tiny import TinyFamily
from pipeline.families.wan import WanFamily

FAMILIES: dict[str, type[Family]] = {
    "cogvideox": CogVideoXFamily,
    "tiny": TinyFamily,
    "wan": WanFamily,
}


def family_type(name: str) -> type[Family]:
    """The family of that name; raises InputError naming those that exist."""
    if name not in FAMILIES:
        raise InputError(
            f"model.family.name: {name!r} is not a family; use one of {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[name]
