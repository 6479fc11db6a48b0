"""The suites by name."""

from __future__ import annotations

from data_prep.records import InputError
from pipeline.suites import compbench, entitybench, opens2v, vbench2
from pipeline.suites.suite import Suite

SUITES: dict[str, Suite] = {
    "opens2v": opens2v.SUITE,
    "compbench": compbench.SUITE,
    "vbench2": vbench2.SUITE,
    "entitybench": entitybench.SUITE,
}


def known_suite(name: str) -> Suite:
    """The suite of this name; raises InputError for another."""
    if name not in SUITES:
        raise InputError(f"suite: came {name!r}; there are {', '.join(SUITES)}")
    return SUITES[name]
