"""What the references of many samples come to, in numbers: origins, gaps, similarity, and how far they turn.

Counted from the samples' own notes, one at a time, so that it is said of what was packed and not of what was meant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from data_prep.records import Json
from data_prep.shards import ReferenceNote, SampleNote

QUANTILES = {"p10": 0.1, "median": 0.5, "p90": 0.9}


@dataclass(frozen=True)
class ReferenceFigures:
    """Of every cast member of every sample. origins: references by where they come from, ``other_source`` told
    apart; num_inside: those that lie in the frames of their sample, 0 unless something is broken; yaw_spread_deg:
    per cast member, from the leftmost to the rightmost face; smallest_gap_s: to a sample's frames, in its source.
    Quantiles are 10, 50 and 90 %; all None where there is no reference."""

    num_slots: int
    num_references: int
    num_inside: int
    origins: dict[str, int]
    per_slot: dict[str, int]
    yaw_spread_deg: dict[str, float] | None
    similarity: dict[str, float] | None
    size_px: dict[str, float] | None
    smallest_gap_s: float | None

    def sentence(self) -> str:
        """The figures in one line for people."""
        origins = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in self.origins.items())
        if self.yaw_spread_deg is None:
            return "no references"
        spread = self.yaw_spread_deg
        return (
            f"{self.num_references} references for {self.num_slots} faces of samples: {origins}; "
            f"{self.num_inside} from frames being trained on; each face's differ by {spread['median']:.0f} degrees "
            f"of yaw (median; {spread['p10']:.0f} to {spread['p90']:.0f} in 80 %)"
        )


def figures(notes: Iterable[SampleNote]) -> ReferenceFigures:
    """Read the notes once."""
    origins: Counter[str] = Counter()
    per_slot: Counter[str] = Counter()
    spreads, similarities, sizes, gaps = list[float](), list[float](), list[float](), list[float]()
    inside = 0
    for note in notes:
        for slot in note.references:
            per_slot[str(len(slot))] += 1
            yaws = [reference.yaw_deg for reference in slot]
            spreads.append(max(yaws, default=0.0) - min(yaws, default=0.0))
            for reference in slot:
                origins[_origin(note, reference)] += 1
                inside += _is_inside(note, reference)
                similarities.append(reference.similarity)
                sizes.append(reference.size_px)
                gaps += [] if reference.time_gap_s is None else [reference.time_gap_s]
    return ReferenceFigures(
        num_slots=len(spreads),
        num_references=len(similarities),
        num_inside=inside,
        origins=dict(origins.most_common()),
        per_slot=dict(sorted(per_slot.items())),
        yaw_spread_deg=_quantiles(spreads),
        similarity=_quantiles(similarities),
        size_px=_quantiles([size for size in sizes if size > 0]),
        smallest_gap_s=min(gaps, default=None),
    )


def dropped_shares(lost_by_rule: Json, num_windows: int) -> dict[str, float]:
    """Share of all windows that each rule dropped, the most frequent first; ``lost_by_rule`` is the manifest's."""
    counts = {
        name.removeprefix("window: "): n for name, n in lost_by_rule.items() if name.startswith("window: ")
    }
    return {rule: count / max(num_windows, 1) for rule, count in sorted(counts.items(), key=lambda c: -c[1])}


def _origin(note: SampleNote, reference: ReferenceNote) -> str:
    return "other_source" if reference.source_id != note.source_id else reference.origin


def _is_inside(note: SampleNote, reference: ReferenceNote) -> bool:
    """By frame within the clip, by time within the source."""
    if reference.clip_id == note.clip_id:
        return note.frames[0] <= reference.frame <= note.frames[-1]
    return reference.source_id == note.source_id and (reference.time_gap_s or 0.0) <= 0.0


def _quantiles(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {name: round(float(np.quantile(values, at)), 4) for name, at in QUANTILES.items()}
