"""Keyframes first, as one short video with the cast, then the frames between each two of them.

So is Veo 3 described; nothing of it is published. Ours: the keyframes are drawn at once, so that they agree with
each other, as a video in which each latent frame is a keyframe; between two of them the first and the last latent
frame are given clean (noise level 0), the last as that of a video which stands still there, since a causal
codec's last latent frame holds several frames.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from data_prep.records import U8, InputError
from pipeline.config import GenerateConfig
from pipeline.families.contract import LatentGrid
from pipeline.generate import Scene
from pipeline.given import check_clean_frames
from pipeline.strategies.studio import Draw, Studio, part_of, seed_of


def places(config: GenerateConfig, grid: LatentGrid) -> list[int]:
    """The frames that are keyframes, first and last among them, spread evenly over the family's grouping.

    Raises:
        InputError: too few for the windows, or so many that nothing is left between two of them.
    """
    length = config.strategy.window or config.num_frames
    for frames in (config.num_frames, length):
        grid.size(frames, config.height_px, config.width_px)
    steps, most = (config.num_frames - 1) // grid.frames, max((length - 1) // grid.frames, 1)
    least = 1 + -(-steps // most)
    num = config.strategy.keyframes or least
    if not max(least, 2) <= num <= 1 + steps // 2:
        raise InputError(
            f"strategy.keyframes={num}: {config.num_frames} frames in windows of {length} take from "
            f"{max(least, 2)} to {1 + steps // 2} keyframes, one latent frame at least between two of them; change "
            "num_frames, strategy.window or the number"
        )
    return [grid.frames * ((2 * i * steps + num - 1) // (2 * (num - 1))) for i in range(num)]


class Keyframes:
    """``Strategy``: keyframes, then what is between."""

    def check(self, studio: Studio, scene: Scene, config: GenerateConfig) -> None:
        """Raise InputError for a model with one noise level, or keyframes that cannot be."""
        check_clean_frames(studio.model, "strategy keyframes")
        places(config, studio.model.family.grid)

    def around(self, studio: Studio, draw: Draw) -> Draw:
        """A video between its keyframes."""

        def between(scene: Scene, config: GenerateConfig) -> U8:
            grid = studio.model.family.grid
            found = places(config, grid)
            studio.notes["keyframes"] = found
            pictures = draw(*_sparse(scene, config, len(found), grid.frames))[:: grid.frames]
            studio.pictures.update((f"keyframe-{place}", p) for place, p in zip(found, pictures, strict=True))
            parts = []
            for i, (first, last) in enumerate(pairwise(found)):
                seen = part_of(scene, first, last + 1)
                seen = replace(seen, anchor=pictures[i], ending=pictures[i + 1])
                own = replace(config, num_frames=last + 1 - first, seed=seed_of(config, i + 1))
                parts.append(draw(seen, own)[min(i, 1) :])  # a segment's first frame is the last one's end
            return np.concatenate(parts)

        return between


def _sparse(scene: Scene, config: GenerateConfig, num: int, grouping: int) -> tuple[Scene, GenerateConfig]:
    """The short video of ``num`` keyframes, one to a latent frame, with the layout of the whole one."""
    num_frames = 1 + (num - 1) * grouping
    if scene.layout is not None and scene.layout.ndim == 3:
        shown = np.linspace(0, len(scene.layout) - 1, num_frames).round().astype(int)
        scene = replace(scene, layout=scene.layout[shown])
    return scene, replace(config, num_frames=num_frames)
