"""The ground truth of one clip of the demo footage: who is where, and how much of each face can be seen.

It is for tests alone; nothing in preparation reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.records import F32, I32, U8


@dataclass(frozen=True)
class ClipTruth:
    """F frames at 960×540 of P people.

    people: stage names; boxes_px: f32[F,P,4] bounds of the whole face outline, covered or not, NaN where the
    person is not in the shot; visibility: f32[F,P] share of the face that is inside the frame and not covered;
    labels: u8[F,540,960], k where the k-th of ``people`` shows the face, 0 elsewhere; shot_starts: i32[S].
    """

    people: tuple[str, ...]
    boxes_px: F32
    visibility: F32
    labels: U8
    shot_starts: I32

    def save(self, path: Path) -> None:
        """Write an npz without pickle; equal truths give equal bytes."""
        np.savez_compressed(
            path,
            people=np.array(self.people, np.str_),
            boxes_px=self.boxes_px,
            visibility=self.visibility,
            labels=self.labels,
            shot_starts=self.shot_starts,
        )

    @staticmethod
    def load(path: Path) -> ClipTruth:
        with np.load(path, allow_pickle=False) as stored:
            return ClipTruth(
                tuple(str(name) for name in stored["people"]),
                stored["boxes_px"],
                stored["visibility"],
                stored["labels"],
                stored["shot_starts"],
            )
