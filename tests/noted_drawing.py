"""A drawing that notes what it is asked for, in place of a model, for strategies that call one several times."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from data_prep.records import U8
from pipeline.config import GenerateConfig
from pipeline.generate import Scene


@dataclass
class Asked:
    """A ``Draw`` that notes what it is asked for: frame t of answer n is filled with 16 n + t."""

    scenes: list[Scene] = field(default_factory=list)
    configs: list[GenerateConfig] = field(default_factory=list)

    def __call__(self, scene: Scene, config: GenerateConfig) -> U8:
        number = len(self.scenes)
        self.scenes.append(scene)
        self.configs.append(config)
        frames = np.zeros((config.num_frames, config.height_px, config.width_px, 3), np.uint8)
        return frames + (16 * number + np.arange(config.num_frames, dtype=np.uint8))[:, None, None, None]
