"""Drawing by strategies: the default is the bank, mixes work together, and who cannot work says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from data_prep.records import InputError
from pipeline.config import GenerateConfig, StrategyConfig
from pipeline.generate import Scene, generate
from pipeline.model import Model
from pipeline.strategies.drawing import draw

NewModel = Callable[..., Model]
CONFIG = GenerateConfig(num_frames=3, height_px=32, width_px=48, steps=2, seed=2)


def by(name: str, **more: object) -> GenerateConfig:
    return replace(CONFIG, strategy=StrategyConfig(name, **more))  # type: ignore[arg-type]


def test_the_bank_is_the_default_and_what_generation_was(new_model: NewModel, scene: Scene) -> None:
    model = new_model()
    drawn = draw(model, scene, CONFIG)
    assert np.array_equal(drawn.frames, generate(model, scene, CONFIG))
    assert (drawn.num_steps, drawn.notes, drawn.pictures) == (2, {}, {})


def test_without_the_bank_the_prompt_alone_speaks_of_the_cast(new_model: NewModel, scene: Scene) -> None:
    model = new_model()
    alone = draw(model, scene, by("anchored")).frames
    assert not np.array_equal(alone, draw(model, scene, by("anchored+bank")).frames)
    nobody = draw(model, replace(scene, tokens=None), by("anchored+bank")).frames
    assert np.array_equal(alone, nobody)


def test_an_anchor_is_captioned_drawn_and_kept(new_model: NewModel, scene: Scene) -> None:
    model = new_model()
    drawn = draw(model, scene, by("anchored+bank"))
    assert drawn.notes["anchor_caption"] == "Anna talks to Ben."
    anchor = drawn.pictures["anchor"]
    given = draw(model, replace(scene, anchor=anchor), by("bank"))
    assert np.array_equal(drawn.frames, given.frames)
    own = draw(
        model, replace(scene, anchor=anchor), by("anchored+bank")
    )  # one that is given is not drawn again
    assert np.array_equal(own.frames, drawn.frames) and "anchor" not in own.pictures


def test_fewer_steps_are_fewer_steps(new_model: NewModel, scene: Scene) -> None:
    told: list[tuple[str, int, int]] = []
    config = replace(by("anchored+bank"), steps=5)
    drawn = draw(new_model(), scene, config, lambda *step: told.append(step))
    assert drawn.num_steps == 5 and told == [("sampling", i, 5) for i in range(1, 6)]


def test_all_layers_at_once(new_model: NewModel, scene: Scene) -> None:
    layout = np.zeros((9, 32, 48), np.uint8)
    layout[:, 8:24, :16], layout[:, 8:24, 32:] = 1, 2
    config = replace(by("anchored+keyframes+tracked+bank", window=5), num_frames=9)
    model, shown = new_model(), replace(scene, layout=layout)
    drawn, again = (draw(model, shown, config) for _ in range(2))
    assert np.array_equal(drawn.frames, again.frames) and drawn.num_steps == 6
    assert list(drawn.pictures) == ["anchor", "keyframe-0", "keyframe-4", "keyframe-8"]
    off = np.abs(drawn.pictures["anchor"].astype(int) - drawn.frames[0])
    assert off.mean() < 40  # what 24 channels keep of noise


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two-paths", r"no low-frequency path; train one with model\.identity\.low_frequency=true"),
        ("lock", "tokens are locked in a bank"),
        ("nobody", "'nobody' is none"),
        ("anchored+bank", "no picture of the cast"),
    ],
)
def test_what_cannot_work_says_what_to_do(name: str, message: str, new_model: NewModel, scene: Scene) -> None:
    with pytest.raises(InputError, match=message):
        draw(new_model(), replace(scene, faces=None), by(name))


def test_who_is_locked_is_known_by_the_bank(new_model: NewModel, scene: Scene) -> None:
    model = new_model()
    with pytest.raises(InputError, match=r"tokens of ben are not locked; .*model\.adapter\.lock=\[ben\]"):
        draw(model, replace(scene, unlocked=("ben",)), by("lock"))
    drawn = draw(model, replace(scene, unlocked=()), by("lock"))
    assert np.array_equal(drawn.frames, draw(model, scene, CONFIG).frames)


def test_a_model_of_text_alone_takes_no_anchor(i2v: Callable[[], Model], scene: Scene) -> None:
    config = replace(
        CONFIG, num_frames=5, height_px=32, width_px=64, strategy=StrategyConfig("anchored+bank")
    )
    assert draw(i2v(), scene, config).frames.shape == (5, 32, 64, 3)  # an image-to-video model does
    with pytest.raises(InputError, match="first frame: none came"):
        draw(i2v(), scene, replace(config, strategy=StrategyConfig("bank")))
