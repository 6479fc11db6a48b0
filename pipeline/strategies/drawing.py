"""Drawing by a consistency strategy or a mix of them: ``draw(model, scene, config)`` reads ``config.strategy``.

A new strategy is one file that satisfies ``studio.Strategy``, one line here, one in ``names``, and one test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from data_prep.records import U8, Progress
from pipeline.config import GenerateConfig
from pipeline.generate import Scene, generate
from pipeline.model import Model
from pipeline.strategies.anchored import Anchored
from pipeline.strategies.context import Context
from pipeline.strategies.identity import Bank, Lock, Nobody, TwoPaths
from pipeline.strategies.keyframes import Keyframes
from pipeline.strategies.names import ABOUT, parse
from pipeline.strategies.studio import Draw, Strategy, Studio
from pipeline.strategies.tracked import Tracked

STRATEGIES: dict[str, Strategy] = {
    "bank": Bank(),
    "two-paths": TwoPaths(),
    "lock": Lock(),
    "tracked": Tracked(),
    "context": Context(),
    "keyframes": Keyframes(),
    "anchored": Anchored(),
}


@dataclass(frozen=True, eq=False)
class Drawn:
    """frames: u8[T,H,W,3] RGB; num_steps: steps of the sampler that it took, of all windows and looks; notes: what
    was decided on the way, as JSON takes it; pictures: u8[H,W,3] by name, an anchor and keyframes."""

    frames: U8
    num_steps: int
    notes: dict[str, Any]
    pictures: dict[str, U8]


def draw(
    model: Model, scene: Scene, config: GenerateConfig, progress: Progress = lambda *_: None, key: str = ""
) -> Drawn:
    """The video by ``config.strategy``; the same for the same arguments on the same machine.

    Without bank, two-paths or lock in the mix the model is told of the cast by the prompt alone, and the scene's
    cast serves the others (an anchor, say). ``key``: of an endpoint that rewrites, itself.

    Raises:
        InputError: names that are none or do not go together, a model or scene that one of them cannot work with,
            or as ``generate``.
    """
    names = parse(config.strategy.name)
    studio = Studio(model, progress, key)
    told = any(ABOUT[name].layer in ("tokens", "identity") for name in names)
    strategies = [STRATEGIES[name] for name in names] + ([] if told else [Nobody()])
    for strategy in strategies:
        strategy.check(studio, scene, config)
    num_steps = 0

    def window(scene: Scene, config: GenerateConfig) -> U8:
        nonlocal num_steps
        num_steps += config.steps
        return generate(model, scene, config, progress)

    drawing: Draw = window
    for strategy in reversed(strategies):
        drawing = strategy.around(studio, drawing)
    frames = np.ascontiguousarray(drawing(scene, config))
    return Drawn(frames, num_steps, studio.notes, studio.pictures)
