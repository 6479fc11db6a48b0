"""Long context: a video longer than a model's window, each window beginning with clean frames of what is there.

That the identity of who is seen is carried by context alone is what is said of Sora 2; the mechanism is that of
diffusion forcing (Chen et al. 2024, arXiv 2407.01392) as SkyReels-V2 (arXiv 2504.13074) continues videos: the last
frames are encoded again as a video of their own and stand at noise level 0. Ours is the plan of windows, all of one
length, of which the last takes more history rather than being shorter than the model has seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from data_prep.records import U8, InputError
from pipeline.config import GenerateConfig
from pipeline.families.contract import LatentGrid
from pipeline.generate import Scene
from pipeline.given import check_clean_frames
from pipeline.strategies.studio import Draw, Studio, part_of, seed_of


@dataclass(frozen=True)
class Window:
    """Frames [first, stop), of which the first ``history`` are there already."""

    first: int
    stop: int
    history: int


def windows(config: GenerateConfig, grid: LatentGrid) -> list[Window]:
    """What is drawn one after the other.

    Raises:
        InputError: the video is one window, a window or history does not fit the family's grouping, or nothing
            would be drawn beside the history.
    """
    length = config.strategy.window or config.num_frames
    for frames in (config.num_frames, length):
        grid.size(frames, config.height_px, config.width_px)
    if length >= config.num_frames:
        raise InputError(
            f"strategy context: num_frames={config.num_frames} is one window (strategy.window={length}), so that "
            "there is nothing to continue; ask for more frames, or give a shorter window"
        )
    half = 1 + (length // 2 - 1) // grid.frames * grid.frames
    kept = config.strategy.history or max(half, 1)
    if (kept - 1) % grid.frames or kept >= length:
        raise InputError(
            f"strategy.history={kept}: it is 1 + a multiple of {grid.frames} and below the window, {length}"
        )
    found = [Window(0, length, 0)]
    while found[-1].stop < config.num_frames:
        stop = min(found[-1].stop + length - kept, config.num_frames)
        found.append(Window(stop - length, stop, found[-1].stop - (stop - length)))
    return found


class Context:
    """``Strategy``: windows that continue each other."""

    def check(self, studio: Studio, scene: Scene, config: GenerateConfig) -> None:
        """Raise InputError for a model with one noise level, or windows that cannot be."""
        check_clean_frames(studio.model, "strategy context")
        windows(config, studio.model.family.grid)

    def around(self, studio: Studio, draw: Draw) -> Draw:
        """A long video out of windows."""

        def continued(scene: Scene, config: GenerateConfig) -> U8:
            plan = windows(config, studio.model.family.grid)
            studio.notes["windows"] = [[window.first, window.stop, window.history] for window in plan]
            frames = np.zeros((0, config.height_px, config.width_px, 3), np.uint8)
            for number, window in enumerate(plan):
                seen = part_of(scene, window.first, window.stop)
                if window.history:
                    seen = replace(seen, anchor=None, history=frames[window.first :])
                length = window.stop - window.first
                drawn = draw(seen, replace(config, num_frames=length, seed=seed_of(config, number)))
                frames = np.concatenate([frames, drawn[window.history :]])
            return frames

        return continued
