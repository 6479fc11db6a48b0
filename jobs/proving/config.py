"""The knobs of the proof, each declared once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from data_prep.records import InputError
from jobs import config as configs
from jobs.proving.rows import ROWS, Row

ALLOWED = {  # key: least and greatest value
    "base_steps": (1, math.inf),
    "steps": (1, math.inf),
    "added_steps": (1, math.inf),
    "seeds": (1, 100),
    "repeats": (1, 50),
    "sampler_steps": (1, 1000),
    "num_processes": (1, 64),
}


@dataclass(frozen=True)
class ProofConfig:
    """castbank proof."""

    rows: tuple[str, ...] = ()  # names of rows; what they draw from is trained too; empty: all
    repeats: int = 2  # clips of every cast before every backdrop, 138 clips each; more: fewer seen by heart
    base_steps: int = 900  # of the base without identity that all rows start from
    steps: int = 300  # of every row's own training, the same for all
    added_steps: int = 150  # of the LoRA for one more character
    seeds: int = 3  # videos of every prompt, from the same first noises in every row
    sampler_steps: int = 16  # of a video
    seed: int = 0  # of every training and of the first video
    num_processes: int = 2  # ranks of a training and processes that draw: the cores of this machine

    def chosen(self) -> list[Row]:
        """The rows asked for, with those that they draw from, in the table's order."""
        known = {row.name: row for row in ROWS}
        names = list(self.rows) or [row.name for row in ROWS if not row.dear]
        if unknown := [name for name in names if name not in known]:
            raise InputError(f"rows: {', '.join(unknown)} unknown; there are {', '.join(known)}")
        wanted = {*names, *(known[name].of for name in names)} - {""}
        wanted |= {known[name].of for name in wanted} - {""}
        return [row for row in ROWS if row.name in wanted]


def check(config: ProofConfig) -> None:
    """Raise InputError for values that no proof can have."""
    configs.check_ranges(config, ALLOWED)
    config.chosen()
