"""A part of preparation: one share of the clips is analysed, beside other parts on other machines.

N parts may run at the same time, in any order, more than once and each with its own Ray: a part only adds analyses
to the output's ``.work`` and remembers its own files' hashes. A whole preparation afterwards finds them all, and
its shards are those that it would have made alone. Clips that failed here are tried again there, which decides
about the corpus as a whole; so a machine that spoils its share costs time and no clip.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from data_prep.analysis.analyse import analyse
from data_prep.config import PrepareConfig
from data_prep.ingest.manifest import read_clips
from data_prep.records import Decision, InputError, Progress
from data_prep.running.commit import WORK, full_disk_is_said, one_of_several
from data_prep.running.isolation import Workers
from data_prep.running.work import (
    AnalyseOne,
    Place,
    TooManyFailedError,
    addresses,
    analyse_missing,
    analysed,
    settled,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """Share ``number`` of ``count``, from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """``2/4`` as a Part; raises InputError for anything that is none."""
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        number, count = (int(word) for word in found.groups()) if found else (0, 0)
        if not 1 <= number <= count:
            raise InputError(
                f"--part: came {text!r}; give K/N, the K-th of N shares with K from 1 to N, such as 1/4"
            )
        return cls(number, count)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, items: Sequence[T]) -> list[T]:
        """Every ``count``-th item: neighbours, which are alike, are spread over the parts."""
        return list(items[self.number - 1 :: self.count])


@dataclass(frozen=True)
class PartDone:
    """What one part came to. num_clips: of the manifest; num_own: its share; num_before: of that share, what was
    analysed already; failed: what could not be, tried again by the whole preparation."""

    num_clips: int
    num_own: int
    num_before: int
    failed: tuple[Decision, ...]


def prepare_part(
    config: PrepareConfig, part: Part, on_progress: Progress, *, analyse_one: AnalyseOne = analyse
) -> PartDone:
    """Analyse one share of the manifest's clips into ``config.output``; what is analysed already is left alone.

    Raises:
        InputError: something given is wrong, a whole preparation is at work, the disk is full, or so many clips
            failed that the whole preparation would fail too.
    """
    config, pack = settled(config)
    output = Path(config.output)
    with full_disk_is_said(output), one_of_several(output, config.run.lock_wait_s) as desk:
        clips, _ = read_clips(config.manifest, config.clips, config.ingest)
        own = part.of(sorted(clips, key=lambda clip: clip.id))
        memory = output / WORK / f"files-{part.number}-of-{part.count}.json"
        works = addresses(own, config, pack, memory, on_progress)
        num_before = len(analysed(works, output))
        with Workers(config.run.num_workers) as workers:
            place = Place(workers, config, desk, on_progress, analyse_one)
            failed = analyse_missing(works, place, len(clips))
    if len(failed) == len(own) > 1:  # fewer prove nothing about the machine
        every = f"{len(failed)} of {len(own)} clips failed"
        raise TooManyFailedError(failed, every, "which is every clip of this part")
    return PartDone(len(clips), len(own), num_before, tuple(failed))
