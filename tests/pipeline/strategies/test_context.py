"""Windows that continue each other: all of one length, each from what is there, every frame drawn once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from data_prep.records import InputError
from pipeline.config import GenerateConfig, StrategyConfig
from pipeline.families.contract import LatentGrid
from pipeline.generate import Scene
from pipeline.model import Model
from pipeline.strategies.context import Context, windows
from pipeline.strategies.drawing import draw
from pipeline.strategies.studio import Studio
from tests.noted_drawing import Asked

NewModel = Callable[..., Model]
CONFIG = GenerateConfig(
    num_frames=9, height_px=32, width_px=48, steps=2, strategy=StrategyConfig("context", window=5, history=2)
)
WAN = LatentGrid(4, 16, (1, 2, 2))


@pytest.mark.parametrize("history", [0, 1, 5, 13])
@pytest.mark.parametrize("num_frames", [21, 25, 33, 81])
def test_windows_cover_every_frame_once_and_are_as_long_as_trained(num_frames: int, history: int) -> None:
    strategy = StrategyConfig("context", window=17, history=history)
    found = windows(GenerateConfig(num_frames, 32, 64, strategy=strategy), WAN)
    drawn = [frame for w in found for frame in range(w.first + w.history, w.stop)]
    assert drawn == list(range(num_frames))
    assert all(w.stop - w.first == 17 for w in found)
    assert all(w.history >= max(history, 1) and w.history % 4 == 1 for w in found[1:])


def test_each_window_is_given_the_end_of_what_is_there_and_its_part_of_the_layout(
    new_model: NewModel, scene: Scene, asked: Asked
) -> None:
    layout = np.broadcast_to(np.arange(9, dtype=np.uint8)[:, None, None] % 3, (9, 32, 48))
    anchor = np.zeros((32, 48, 3), np.uint8)
    drawing = Context().around(Studio(new_model()), asked)
    frames = drawing(replace(scene, layout=layout, anchor=anchor), CONFIG)
    # windows [0,5), [3,8) and [4,9), of which the first 0, 2 and 4 frames are there
    assert frames[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 18, 19, 20, 36]
    first, second, third = asked.scenes
    assert first.anchor is anchor and first.history is None and second.anchor is None
    assert np.array_equal(second.history, frames[3:5]) and np.array_equal(third.history, frames[4:8])
    assert np.array_equal(third.layout, layout[4:9])
    assert len({config.seed for config in asked.configs}) == 3
    assert asked.configs[0].seed == CONFIG.seed


def test_a_long_video_is_the_same_again_and_its_first_window_is_the_short_one(
    new_model: NewModel, scene: Scene
) -> None:
    model, mixed = new_model(), replace(CONFIG.strategy, name="context+bank")
    config = replace(CONFIG, strategy=mixed)
    long, again = (draw(model, scene, config) for _ in range(2))
    assert np.array_equal(long.frames, again.frames) and long.frames.shape == (9, 32, 48, 3)
    assert long.num_steps == 3 * config.steps and len(long.notes["windows"]) == 3
    short = replace(config, num_frames=5, strategy=StrategyConfig("bank"))
    assert np.array_equal(long.frames[:5], draw(model, scene, short).frames)


def test_a_wan_is_continued_by_its_groups_of_frames(ti2v: Callable[[], Model], scene: Scene) -> None:
    strategy = StrategyConfig("context+bank", window=9, history=5)
    config = GenerateConfig(13, 32, 64, steps=1, strategy=strategy)
    drawn = draw(ti2v(), scene, config)
    assert drawn.frames.shape == (13, 32, 64, 3) and drawn.notes["windows"] == [[0, 9, 0], [4, 13, 5]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 9}, "one window"),
        ({"window": 0}, "one window"),
        ({"history": 5}, r"strategy\.history=5"),
    ],
)
def test_windows_that_cannot_be_are_named(
    changes: dict[str, int], message: str, new_model: NewModel, scene: Scene
) -> None:
    with pytest.raises(InputError, match=message):
        draw(new_model(), scene, replace(CONFIG, strategy=replace(CONFIG.strategy, **changes)))


def test_history_fits_the_grouping() -> None:
    with pytest.raises(InputError, match=r"strategy\.history=4: it is 1 \+ a multiple of 4"):
        windows(GenerateConfig(33, 32, 64, strategy=StrategyConfig("context", window=17, history=4)), WAN)


def test_a_model_with_one_level_says_which_have_more(i2v: Callable[[], Model], scene: Scene) -> None:
    with pytest.raises(InputError, match=r"strategy context gives latent frames clean.*tiny, Wan 2.2 TI2V"):
        draw(i2v(), scene, GenerateConfig(17, 32, 64, strategy=StrategyConfig("context", window=9)))
