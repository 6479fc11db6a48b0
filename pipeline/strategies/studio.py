"""What a strategy is to those who use it, and what it works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from data_prep.records import U8, Progress
from pipeline.config import GenerateConfig
from pipeline.generate import Scene
from pipeline.model import Model

Draw = Callable[[Scene, GenerateConfig], U8]
"""Draws a scene: u8[T,H,W,3] RGB of ``num_frames`` frames."""


@dataclass(frozen=True, eq=False)
class Studio:
    """model: draws; progress: told of steps; key: of an endpoint that rewrites, itself; notes: what was decided on
    the way, such as an anchor's caption, as JSON takes it, written by strategies; pictures: u8[H,W,3] drawn on the
    way, by name, likewise."""

    model: Model
    progress: Progress = lambda *_: None
    key: str = ""
    notes: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, U8] = field(default_factory=dict)


class Strategy(Protocol):
    """One way to keep a cast the same, around what draws inside it."""

    def check(self, studio: Studio, scene: Scene, config: GenerateConfig) -> None:
        """Raise InputError where it cannot work for this model, scene or configuration."""

    def around(self, studio: Studio, draw: Draw) -> Draw:
        """The drawing with this strategy, out of one without it."""


def seed_of(config: GenerateConfig, window: int) -> int:
    """The seed of one of several windows: of the first the configuration's own, of others one that follows."""
    if window == 0:
        return config.seed
    return int(np.random.SeedSequence([config.seed, window]).generate_state(1, np.uint32)[0])


def part_of(scene: Scene, first: int, stop: int) -> Scene:
    """The scene of frames [first, stop): its layout, where it is one over time, is cut."""
    if scene.layout is None or scene.layout.ndim == 2:
        return scene
    return replace(scene, layout=scene.layout[first:stop])
