"""Keyframes are drawn first, as one video, and each stretch lies between two of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from data_prep.records import InputError
from pipeline.config import GenerateConfig, StrategyConfig
from pipeline.families.contract import LatentGrid
from pipeline.generate import Scene
from pipeline.model import Model
from pipeline.strategies.drawing import draw
from pipeline.strategies.keyframes import Keyframes, places
from pipeline.strategies.studio import Studio
from tests.noted_drawing import Asked

NewModel = Callable[..., Model]
CONFIG = GenerateConfig(
    num_frames=9, height_px=32, width_px=48, steps=2, strategy=StrategyConfig("keyframes+bank", window=5)
)
WAN = LatentGrid(4, 16, (1, 2, 2))


@pytest.mark.parametrize("keyframes", [0, 5, 6])
@pytest.mark.parametrize("num_frames", [41, 49, 65])
def test_keyframes_are_spread_evenly_over_the_grouping(num_frames: int, keyframes: int) -> None:
    strategy = StrategyConfig("keyframes", window=17, keyframes=keyframes)
    found = places(GenerateConfig(num_frames, 32, 64, strategy=strategy), WAN)
    lengths = [last + 1 - first for first, last in pairwise(found)]
    assert found[0] == 0 and found[-1] == num_frames - 1
    assert all(length % 4 == 1 and 9 <= length <= 17 for length in lengths)
    assert max(lengths) - min(lengths) <= 4
    assert len(found) == keyframes or not keyframes


def test_each_stretch_is_given_both_its_keyframes(new_model: NewModel, scene: Scene, asked: Asked) -> None:
    studio = Studio(new_model())
    layout = np.broadcast_to(np.arange(9, dtype=np.uint8)[:, None, None] % 3, (9, 32, 48))
    frames = Keyframes().around(studio, asked)(replace(scene, layout=layout), CONFIG)
    sparse, first, second = asked.scenes
    assert [config.num_frames for config in asked.configs] == [3, 5, 5]
    assert np.array_equal(sparse.layout, layout[[0, 4, 8]])
    assert [(int(s.anchor[0, 0, 0]), int(s.ending[0, 0, 0])) for s in (first, second)] == [(0, 1), (1, 2)]
    assert np.array_equal(second.layout, layout[4:])
    assert frames[:, 0, 0, 0].tolist() == [16, 17, 18, 19, 20, 33, 34, 35, 36]
    assert list(studio.pictures) == ["keyframe-0", "keyframe-4", "keyframe-8"]


def test_the_video_shows_its_keyframes_and_is_the_same_again(new_model: NewModel, scene: Scene) -> None:
    model = new_model()
    drawn, again = (draw(model, scene, CONFIG) for _ in range(2))
    assert np.array_equal(drawn.frames, again.frames) and drawn.num_steps == 3 * CONFIG.steps
    for place in drawn.notes["keyframes"]:  # the codec of patches gives back what it gave
        off = np.abs(drawn.frames[place].astype(int) - drawn.pictures[f"keyframe-{place}"])
        assert off.mean() < 1.0


def test_a_wan_takes_a_keyframe_per_latent_frame(ti2v: Callable[[], Model], scene: Scene) -> None:
    config = GenerateConfig(17, 32, 64, steps=1, strategy=StrategyConfig("keyframes+bank", window=9))
    drawn = draw(ti2v(), scene, config)
    assert drawn.frames.shape == (17, 32, 64, 3) and drawn.notes["keyframes"] == [0, 8, 16]


@pytest.mark.parametrize(
    ("num_frames", "keyframes", "message"),
    [(9, 2, "from 3 to 5 keyframes"), (9, 6, "from 3 to 5"), (2, 0, "from 2 to 1")],
)
def test_too_few_and_too_many_are_named(
    num_frames: int, keyframes: int, message: str, new_model: NewModel, scene: Scene
) -> None:
    strategy = replace(CONFIG.strategy, keyframes=keyframes)
    with pytest.raises(InputError, match=message):
        draw(new_model(), scene, replace(CONFIG, num_frames=num_frames, strategy=strategy))
